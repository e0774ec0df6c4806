package node

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
)

// Ports that a container gets when any will do, as Docker has them: those the
// kernel gives to connections (ip_local_port_range), so that nobody who asks
// for a port by number wants one of them.
const (
	ephemeralFirst = 32768
	ephemeralLast  = 60999
)

// maxPublications bounds the published ports of one container: a whole range of
// 65,535 ports is one slip of the hand, and each is a rule and two sockets.
const maxPublications = 32768

// mostPublications bounds those of a node: every port there is, by TCP and UDP. At
// further addresses there could be more without end.
const mostPublications = 2 << 16

// A publication is one port of a container that is reached from outside.
type publication struct {
	proto    string     // tcp, udp
	hostIP   netip.Addr // the zero Addr is every address we own
	hostPort uint16
	port     uint16 // inside
	rule     uint32 // of the router, while it is open

	open4, open6 bool // whether this host listens for it, by family
}

// bind is the address and port outside, as Docker writes it.
func (p publication) bind() string {
	return netip.AddrPortFrom(p.boundIP(), p.hostPort).String()
}

// boundIP is the address outside, 0.0.0.0 for every one of both families.
func (p publication) boundIP() netip.Addr {
	if !p.hostIP.IsValid() {
		return netip.IPv4Unspecified()
	}
	return p.hostIP
}

// private is the port inside, as Docker writes it.
func (p publication) private() string { return strconv.Itoa(int(p.port)) + "/" + p.proto }

// A portBook says which container has which port outside. It is bounded by
// maxPublications for each container and mostPublications for all.
type portBook struct {
	taken map[protoPort][]holding // mostly one: who has it on every address
	count int                     // in taken
	next  uint16                  // where the search for a free port begins

	// listen opens what a port takes besides, if anything, and unlisten closes it.
	listen   func(c *container, p *publication) error
	unlisten func(p *publication)
}

type protoPort struct {
	proto string
	port  uint16
}

// A holding is a port of a container's at one address, publication.hostIP.
type holding struct {
	at netip.Addr
	c  *container
}

func newPortBook() *portBook {
	return &portBook{
		taken: make(map[protoPort][]holding), next: ephemeralFirst,
		listen:   func(*container, *publication) error { return nil },
		unlisten: func(*publication) {},
	}
}

// holder is who has a port, nil when it is free. Who has it on every address has
// it on each.
func (b *portBook) holder(p publication) *container {
	for _, h := range b.taken[protoPort{p.proto, p.hostPort}] {
		if overlap(h.at, p.hostIP) {
			return h.c
		}
	}
	return nil
}

// overlap reports whether two host addresses have one in common: the zero Addr is
// every one, an unspecified one all of its family.
func overlap(a, b netip.Addr) bool {
	return !a.IsValid() || !b.IsValid() || a == b || a.Is4() == b.Is4() && (a.IsUnspecified() || b.IsUnspecified())
}

// reserve takes all ports of the specifications for c, or none.
func (b *portBook) reserve(c *container, specs []api.PortSpec) (got []publication, err error) {
	defer func() {
		if err != nil {
			b.release(got)
			got = nil
		}
	}()
	for _, s := range specs {
		if len(c.published)+len(got)+s.Container.Len() > maxPublications {
			return got, fail(http.StatusBadRequest, "a container can have %d ports published, and %s are more", maxPublications, s)
		}
		if b.count+s.Container.Len() > mostPublications {
			return got, fail(http.StatusConflict, "all containers together can have %d ports published, and %s are more; `fairlead unpublish` takes some back", mostPublications, s)
		}
		for i := range s.Container.Len() {
			p := publication{proto: s.Proto, hostIP: s.HostIP, port: s.Container.First + uint16(i)}
			if err := b.choose(c, &p, s, i); err != nil {
				return got, err
			}
			b.take(p, c)
			got = append(got, p)
		}
	}
	return got, nil
}

// choose finds the outside port of the i-th port of a specification, and has it
// be listened on.
func (b *portBook) choose(c *container, p *publication, s api.PortSpec, i int) error {
	switch {
	case s.Host.Len() == 0:
		return b.free(c, p, ephemeralFirst, ephemeralLast, &b.next)
	case s.Host.Len() > s.Container.Len(): // any of them
		from := s.Host.First
		return b.free(c, p, s.Host.First, s.Host.Last, &from)
	}
	p.hostPort = s.Host.First + uint16(i)
	if other := b.holder(*p); other != nil {
		return fail(http.StatusConflict, "Bind for %s failed: port is already allocated: %s", p.bind(), other.whyTaken(*p))
	}
	return b.listen(c, p)
}

// whyTaken says what of c's has the outside port of p, and how it gets free.
func (c *container) whyTaken(p publication) string {
	for _, have := range c.published {
		if have.proto == p.proto && have.hostPort == p.hostPort {
			return fmt.Sprintf("container %s has it; choose another, or `fairlead unpublish %[1]s %d:%s`", c.name(), have.hostPort, have.private())
		}
	}
	return "it is asked for twice"
}

// free takes the next free port from first to last, beginning at *next: a port
// that was just given up may still have packets on their way.
func (b *portBook) free(c *container, p *publication, first, last uint16, next *uint16) error {
	count := int(last-first) + 1
	for i := range count {
		p.hostPort = first + uint16((int(*next-first)+i)%count)
		if b.holder(*p) != nil {
			continue
		}
		switch err := b.listen(c, p); {
		case err == nil:
			*next = first + uint16((int(p.hostPort-first)+1)%count)
			return nil
		case !errors.Is(err, unix.EADDRINUSE): // else another program has it
			return err
		}
	}
	return fail(http.StatusConflict, "Bind for %s failed: all ports are allocated: none of %d-%d/%s is free", p.boundIP(), first, last, p.proto)
}

func (b *portBook) take(p publication, c *container) {
	key := protoPort{p.proto, p.hostPort}
	b.taken[key] = append(b.taken[key], holding{p.hostIP, c})
	b.count++
}

// release gives ports back.
func (b *portBook) release(ports []publication) {
	for i := range ports {
		p := &ports[i]
		b.unlisten(p)
		key := protoPort{p.proto, p.hostPort}
		left := slices.DeleteFunc(b.taken[key], func(h holding) bool { return h.at == p.hostIP })
		b.count -= len(b.taken[key]) - len(left)
		b.taken[key] = left
		if len(b.taken[key]) == 0 {
			delete(b.taken, key)
		}
	}
}

// parsePublish reads what a request wants published.
func parsePublish(args []string) (specs []api.PortSpec, err error) {
	for _, arg := range args {
		s, err := api.ParsePublish(arg)
		if err != nil {
			return nil, statusError{http.StatusBadRequest, err}
		}
		specs = append(specs, s)
	}
	return specs, nil
}

// parseExpose reads what a request exposes, each port by itself.
func parseExpose(args []string) (ports []exposed, err error) {
	for _, arg := range args {
		r, proto, err := api.ParseExpose(arg)
		if err != nil {
			return nil, statusError{http.StatusBadRequest, err}
		}
		if len(ports)+r.Len() > maxPublications {
			return nil, fail(http.StatusBadRequest, "a container can have %d ports exposed, and %s are more", maxPublications, arg)
		}
		for i := range r.Len() {
			ports = append(ports, exposed{r.First + uint16(i), proto})
		}
	}
	return ports, nil
}

// An exposed port is one a container says it has.
type exposed struct {
	port  uint16
	proto string
}

func (e exposed) String() string { return fmt.Sprintf("%d/%s", e.port, e.proto) }
