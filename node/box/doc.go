// Package box is a container seen from outside: one command of this machine
// in user, net, mount, uts, pid and ipc namespaces of its own. It is the only
// place that clones, joins namespaces and holds pidfds; it opens the TAPs.
//
// # The life of a container
//
//	client (fairlead run)            init (pid 1 inside)           node
//	---------------------            -------------------           ----
//	Start: socketpair, clone ------> opens the TAP; mounts, files,
//	       Spec ------- born ------> host name, addresses, routes;
//	       <----------- born ------- {ready}, TAP, node's end of
//	                                 the node channel
//	hands over {TAP, pidfd, node channel} -----------------------> adds a port,
//	Release                          keeps copies of these two
//	                                 waits for the carrier <------ raises the carrier
//	Started ----------- born ------> {go}: starts the command
//	        <---------- born ------- {started}: the command runs
//	Signal ------------ born ------> to the command <------------- {signal}, {exec},
//	                                 interfaces and routes <------ {link}, {unlink}, {default}
//	                                 reaps whatever ends
//	                                 the command ends: {exit} ---> and the pidfd says so
//	Wait <----------- status ------- kills the rest and exits
//
// Nothing here asks the node for a right: whoever runs Start or AttachForeign
// brings it, and the node receives descriptors.
//
// Whose end ends what: the command's end is the container's end, because pid 1
// ends with it and the kernel kills the rest. A closed born channel ends a
// foreground container and any container that has not started yet; a closed
// session channel ends what that exec started. Ends is: SIGTERM (a session:
// SIGHUP), a second later SIGKILL. The end of the node ends nothing: init has copies
// of the node's ends, which the next node takes (keep.go).
//
// Root inside may take init apart, it is his process. So client and node
// believe nothing they hear from it: messages are bounded, descriptors looked
// at, and the end of a container is what the kernel says of its pidfd.
//
// # Interfaces of a running container
//
// The node has no right in a container, its init has. So the node asks init for
// a further interface (RequestLink), for its end (RequestUnlink) and for another
// default route (RequestDefaultRoute), each over the node channel with a session
// for the answer, as exec. That works as soon as the node has the channel, so a
// container's interfaces are in place before its command starts.
//
// # Namespaces that others made
//
// AttachForeign hangs an interface into a namespace somebody else made, and
// NetworkShared starts a container inside another's. Both need setns into a
// user namespace, which a process with threads may not do, so one function
// (forkInto) clones, joins and executes this binary again without touching the
// Go heap. A TAP for a foreign namespace is born in an empty one, the nursery,
// and moved: its descriptor pins the nursery, never the target.
//
// # Veth pairs
//
// An interface may be one end of a veth pair instead of a TAP (Interface.Veth).
// The other end lies in a nursery of its own, where no stack answers, and a packet
// socket on it travels in the TAP's place. It needs no /dev/net/tun, and has no
// carrier to raise.
//
// # The files
//
// What clients use: spec.go what a container shall be, start.go and session.go
// start it and one more command, attach.go serves namespaces of others, uplink.go
// opens a way out, interface.go what else may be a port, await.go waits for an
// interface, hostaddr.go follows the addresses of this host, hostroute.go lists its
// routes, trial.go tries what this machine can do. What a node uses: ask.go asks an init, keep.go
// takes hold of one again. What runs inside: init.go,
// with tree.go the mounts, net.go the interface, veth.go the other kind of it,
// request.go what the node asks for, command.go the command and log.go its output.
// Below: join.go the fork, channel.go the messages, pidfd.go and peer.go who a
// process is and where it lives, rights.go what it may, pty.go terminals, main.go
// which of us we are.
//
// # One binary
//
// Both kinds of child are this binary under another name (argv[0]). A program
// that uses box must call Main first thing in main; tests do so in TestMain.
//
// # Concurrency
//
// Start, AttachForeign, OpenUplinkTAP, OpenPacket, the requests and the functions
// on pidfds may be called from any goroutine. A Box and a Session may be
// signalled from any goroutine; Started and Wait have one caller. Of a Channel's
// methods only Recv and Hear need to be kept to one goroutine.
package box
