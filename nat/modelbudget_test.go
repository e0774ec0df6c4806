package nat

import "fairlead/packet"

// admits says whether there is room for a planned flow.
func (m *model) admits(p *modelPlan, q question) packet.Reason {
	key := modelKey{q.scope, q.tuple}
	for _, f := range m.list {
		goes := m.mayGo(f, p) && (p.target == nil || f.mapping != p.target) || m.flows[key] == f && m.replaceable(f, key)
		if f.container == p.Container && goes && m.retired[p.Container] < m.waiting {
			return packet.OK
		}
	}
	switch most := m.config.PerContainer; {
	case !m.full(p):
		return packet.OK
	case m.retired[p.Container] >= m.waiting, m.count(p.Container, false) >= most, p.inward && m.count(p.Container, true) >= most*7/8:
		return packet.FlowBudget
	}
	return packet.FlowTableFull
}

// mayGo reports whether a flow of the same container may end for a planned one.
func (m *model) mayGo(f *modelFlow, p *modelPlan) bool {
	return m.expendable(f) && (f.inward || !p.inward)
}

// waits is how many flows wait to be recycled.
func (m *model) waits() (n int) {
	for _, of := range m.retired {
		n += of
	}
	return n
}

func (m *model) count(c packet.ContainerID, inward bool) (n int) {
	for _, f := range m.list {
		if f.container == c && (f.inward || !inward) {
			n++
		}
	}
	return n
}

// full reports whether a container can have another flow only in place of one.
func (m *model) full(p *modelPlan) bool {
	records := func(c packet.ContainerID) int { return m.count(c, false) + max(m.retired[c]-m.waiting, 0) }
	share, borrowed := m.config.Flows/2/m.config.MaxContainers, 0
	for c := range packet.ContainerID(modelContainers) {
		borrowed += max(records(1<<16|c)-share, 0)
	}
	bound := m.config.PerContainer
	if borrowed >= m.config.Flows-share*m.config.MaxContainers {
		bound = min(bound, share)
	}
	return records(p.Container) >= bound || len(m.list) >= m.config.Flows || p.inward && m.count(p.Container, true) >= bound*7/8
}
