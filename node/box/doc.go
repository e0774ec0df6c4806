// Package box is a container seen from outside: one command of this machine
// in user, net, mount, uts, pid and ipc namespaces of its own. It is the only
// place that clones, joins namespaces and holds pidfds; it opens the TAPs.
//
// # The life of a container
//
//	client (fairlead run)            init (pid 1 inside)              node
//	---------------------            -------------------              ----
//	Start: socketpair, clone ------> InitMain
//	       Spec ---born------------> opens the TAP in its namespace
//	       <-----------born--- ready makes the node channel
//	       {TAP, node channel}
//	hands {TAP, pidfd, node channel} -------------------------------> adds a port,
//	Release                          mounts, hostname, files          raises carrier
//	                                 addresses, routes; waits for
//	Started <------born----- started the carrier; starts the command
//	Signal ---------born-----------> forwards; reaps whatever dies
//	                                 <------------- node channel ---- {exec} {signal}
//	                                 command ends: {exit} ----------> drops the port on
//	Wait <---- exit status --------- kills the rest, exits            the pidfd's event
//
// Nothing here asks the node for a right: whoever runs Start or AttachForeign
// brings it, and the node receives descriptors.
//
// Whose end ends what: the command's end is the container's end, because pid 1
// ends with it and the kernel kills the rest. A closed born channel ends a
// foreground container and any container that has not started yet; a closed
// node channel ends every container; a closed session channel ends what that
// exec started.
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
// # One binary
//
// Both kinds of child are this binary under another name (argv[0]). A program
// that uses box must call Main first thing in main; tests do so in TestMain.
//
// # Concurrency
//
// Start, AttachForeign and the functions on pidfds may be called from any
// goroutine. A Box and a Session may be signalled from any goroutine; Started
// and Wait have one caller. Of a Channel's methods only Recv needs to be kept
// to one goroutine.
package box
