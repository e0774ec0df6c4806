// Package node is the running process: it holds the networks and the
// containers and answers on the control socket.
//
// # Life of a node
//
// The first command that needs one starts it (Ensure), or the user does
// (`fairlead up`). One node runs for each node directory; it holds node.lock
// for as long as it lives, and starting and ending take start.lock, so that two
// first commands start one node and nobody connects to one that is leaving. A
// node that was not asked to stay ends with its last container and uplink.
//
// # Life of a container
//
//	created    POST /v1/containers reserved its name, address and files
//	running    POST …/attach brought its descriptors: TAP, pidfd of its init,
//	           channel to its init
//	ended      the pidfd fired: the port leaves the switch first, then the name,
//	           the address and the files go
//
// One that runs is written down as it changes (record.go), and a node that starts
// adopts those of one that was killed (adopt.go).
//
// The node has no right in the container: whoever made its namespaces handed
// over descriptors, and the node checks what they are before it uses them.
//
// # Networks and attachments
//
// A lan is a network as the registry knows it: its name, a network.Network, its
// ways out and where its containers may get. The default one is always there;
// those that were made by hand outlive the node in state.json.
//
// A container has attachments, one for each network, in the order it was
// connected, and one number on all of them. It has reserved them when it is
// created; each gets its port when the interface is there. Those of a container
// that others share a namespace with go with the last of these.
//
//	first interface   the client hands over its other end
//	further ones      its init makes them when it is asked (box.RequestLink), at
//	                  the start, and for `network connect` later
//	default route     by the highest priority, then the first network by name that
//	                  is not internal; elected again with each change, and init is
//	                  asked to set it
//	what follows      settleLocked: the way of its answers (gateway.Home),
//	                  published ports, names, what may pass
//
// An address of an uplink that is a container's own leads to its attachment on
// the network whose uplink has it.
//
// # Concurrency
//
// Requests come on goroutines of their own; mu guards the registry and is held
// for table work only, never while waiting. Workers never take mu: a pidfd's
// event starts a goroutine. Before mu come, each by itself, linking, while a
// network, an uplink or the router comes or goes, and a container's wiring, while
// its init is waited for because an attachment comes or goes.
//
// # Files
//
//	node.go        Serve: start to end of the process
//	home.go        the node directory and its locks
//	start.go       Ensure: the other side of starting
//	registry.go    containers: find, follow, end
//	create.go      what a container may be called, have and ask for
//	attachment.go  its places on networks, and which leads outside
//	attach.go      what arrives as descriptors
//	connect.go     attachments that come and go while it runs
//	lan.go         the networks, and how they are found
//	networks.go    requests for them: made, listed, changed, removed
//	ipam.go        their subnets, beside those in use
//	state.go       what outlives the node
//	record.go      what is written down for a node that comes after one that was killed
//	adopt.go       how that finds its containers
//	handover.go    a node hands all over to another one
//	handsend.go    descriptor by descriptor,
//	handflows.go   and at last connections and flows
//	takeover.go    and that takes it
//	keep.go        links that those who share a namespace keep for it
//	linkkind.go    what kinds of links they are, and options of links
//	station.go     ports with no container behind them: a real interface, a pair's end
//	portbook.go    which container has which port outside
//	publish.go     a container's published ports: reserve, open, close
//	ports.go       requests for them, and how they are shown
//	listeners.go   who listens inside
//	setup.go       what up sets up: the network, the table of flows
//	uplinks.go     the ways out, as they come and go
//	hostlink.go    networks' own links to this host
//	host.go        the way out by this host's sockets
//	hostports.go   published ports this host listens on
//	budget.go      how many descriptors all that may take
//	capacity.go    and what they come to, for whoever asks before
//	dns.go         the nameserver containers ask by their gateways
//	dnstcp.go      it over TCP
//	dnshost.go     it for this host's own questions
//	zone.go        what it knows of containers' names
//	dhcp.go        the DHCP servers of the networks
//	leases.go      their leases on disk
//	borrow.go      addresses of other DHCP servers, for containers
//	mishaps.go     panics that the nameserver and the DHCP servers outlive
//	files.go       a container's files below the node directory
//	control.go     the control socket, and who may connect to it
//	server.go      its routes, how requests are read and answered
//	turns.go       what one client's requests may cost the others
//	pace.go        the time of a processor they have
//	places.go      how many things of a kind a process may have at once
//	handlers.go    containers' requests
//	logs.go        what detached containers wrote
//	names.go       names for containers that were given none
//	show.go        tables of the switch
//	tracing.go     the trace stream
package node
