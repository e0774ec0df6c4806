package link_test

import (
	"testing"

	"fairlead/link"
	"fairlead/link/linktest"
)

func TestMemContract(t *testing.T) {
	linktest.Contract(t, func(*testing.T) (a, b linktest.Queue) {
		return link.NewPair(linktest.Depth)
	})
}

// TestTAPContract runs the contract on two TAPs with a bridge of the kernel
// between them, with every subset of offloads that a kernel or a container may
// leave the reader.
func TestTAPContract(t *testing.T) {
	needTAP(t)
	for _, o := range []link.Offload{
		link.OffloadAll,
		link.OffloadTCP, // a kernel before 6.2
		link.OffloadChecksum | link.OffloadTSO4,
		link.OffloadChecksum | link.OffloadUSO,
		link.OffloadChecksum,
		0,
	} {
		t.Run(o.String(), func(t *testing.T) {
			linktest.Contract(t, func(t *testing.T) (_, _ linktest.Queue) {
				ns := newNamespace(t)
				a, b := ns.tap("a"), ns.tap("b")
				must(t, a.SetOffload(o))
				must(t, b.SetOffload(o))
				ns.bridged(a, b, "a", "b")
				return a, b
			})
		})
	}
}

func TestWireContract(t *testing.T) {
	needTAP(t)
	for name, open := range map[string]func(ns *namespace) (a, b linktest.Queue){
		"wire to wire": func(ns *namespace) (a, b linktest.Queue) { return ns.wire("a"), ns.wire("b") },
		"wire to TAP":  func(ns *namespace) (a, b linktest.Queue) { return ns.wire("a"), ns.tap("b") },
		"TAP to wire":  func(ns *namespace) (a, b linktest.Queue) { return ns.tap("a"), ns.wire("b") },
	} {
		t.Run(name, func(t *testing.T) {
			linktest.Contract(t, func(t *testing.T) (_, _ linktest.Queue) {
				ns := newNamespace(t)
				a, b := open(ns)
				ns.bridged(a, b, "a", "b")
				return a, b
			})
		})
	}
}

// TestOldKernelContract runs it as on a kernel whose TAPs do not know
// RWF_NOWAIT.
func TestOldKernelContract(t *testing.T) {
	needTAP(t)
	linktest.Contract(t, func(t *testing.T) (_, _ linktest.Queue) {
		ns := newNamespace(t)
		a, b := ns.tap("a"), ns.wire("b")
		link.WithoutNowait(a)
		link.WithoutNowait(b)
		ns.bridged(a, b, "a", "b")
		return a, b
	})
}
