package node

// publishAdmitLocked makes what may pass between containers follow the registry.
func (n *Node) publishAdmitLocked() {}
