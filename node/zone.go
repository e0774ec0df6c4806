package node

// publishNamesLocked makes what containers are called follow the registry.
func (n *Node) publishNamesLocked() {}
