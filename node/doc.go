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
// The node has no right in the container: whoever made its namespaces handed
// over descriptors, and the node checks what they are before it uses them.
//
// # Concurrency
//
// Requests come on goroutines of their own; mu guards the registry and is held
// for table work only, never while waiting. Workers never take mu: a pidfd's
// event starts a goroutine.
//
// # Files
//
//	node.go        Serve: start to end of the process
//	home.go        the node directory and its locks
//	start.go       Ensure: the other side of starting
//	registry.go    containers: find, follow, end
//	create.go      what a container may be called, have and ask for
//	attach.go      what arrives as descriptors
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
//	dhcp.go        the DHCP servers of the networks, and their leases on disk
//	borrow.go      addresses of other DHCP servers, for containers
//	files.go       a container's files below the node directory
//	server.go      the control socket, its routes and peer check
//	handlers.go    containers' requests
//	logs.go        what detached containers wrote
//	names.go       names for containers that were given none
//	show.go        tables of the switch
//	tracing.go     the trace stream
package node
