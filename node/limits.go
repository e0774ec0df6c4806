package node

import (
	"fmt"

	"fairlead/packet"
)

// Limits are the bounds of a node.
func Limits() []packet.Limit {
	return append(append(registryLimits(), clientLimits()...), serviceLimits()...)
}

func registryLimits() []packet.Limit {
	most := packet.Most
	return []packet.Limit{
		{What: "containers of a node", Most: fmt.Sprintf("%d, or a third of the descriptors (`ulimit -n`) that connections leave", maxContainers),
			Beyond: fmt.Sprintf("`run` is refused, with the command for more descriptors; more than %d descriptors of what is gone that wait to be closed count, too", soonClosed)},
		{What: "networks of a container", Most: most(maxAttachments, "networks"), Beyond: "`run` or `network connect` is refused"},
		{What: "uplinks of a node", Most: most(maxUplinks, "uplinks"), Beyond: "the uplink is refused"},
		{What: "published ports, and exposed ones", Most: fmt.Sprintf("%d published ones", mostPublications), Share: most(maxPublications, "of each"), Beyond: "`run` or `publish` is refused"},
		{What: "listening sockets of published ports", Most: fmt.Sprintf("half of `ulimit -n` less %d, and what connections leave", spare), Beyond: "`run` or `publish` is refused"},
		{What: "sockets of containers' connections", Most: fmt.Sprintf("`ulimit -n` less %d, or a quarter of `net.ipv4.ip_local_port_range`", spare),
			Share:  fmt.Sprintf("%d, or an eighth of `ulimit -n`; half of all is kept for %d containers in equal parts", maxContainer, socketShares),
			Beyond: "the container's own oldest connection goes that was never answered; if there is none, the new one is reset", Reasons: []packet.Reason{packet.SocketBudget}},
		{What: "sockets for ports below 1024 that a node is handed", Most: most(maxInherited, "sockets"), Beyond: "400, and they are closed"},
		{What: "rules of a node", Most: most(maxRules, "rules"), Beyond: "`rule add` is refused"},
		{What: "ports of a link that are told as variables", Most: most(maxTold, "ports"), Beyond: "further ones have none"},
	}
}

// shareOfPlaces is what places gives a process.
const shareOfPlaces = "one process a third of what is free: alone a quarter of all. The last eighth is for processes with fewer than two"

func clientLimits() []packet.Limit {
	most, size := packet.Most, packet.MostBytes
	return []packet.Limit{
		{What: "connections of clients", Most: fmt.Sprintf("%d, or a quarter of `ulimit -n`", maxConnections), Share: shareOfPlaces, Beyond: "403 to a process that has its share; another one waits in the kernel until one ends"},
		{What: "requests that go on: that wait, follow or trace", Most: "half of the connections", Share: shareOfPlaces, Beyond: "429"},
		{What: "time of a processor for clients' requests", Most: fmt.Sprintf("one part of %d; %v at once", paceShare, paceBurst), Share: "processes take turns, a request or slice of an answer each",
			Beyond: "they wait, as do new connections, which count for " + paceLeast.String()},
		{What: "time of a processor for looking at who connects", Most: fmt.Sprintf("one part of %d", lookShare), Beyond: "they wait in the kernel"},
		{What: "changes that open or close published ports", Most: most(maxMoves, "at a time"), Share: shareOfPlaces, Beyond: "they wait, and after " + bodyWithin.String() + " it is 429"},
		{What: "answers as long as a table", Most: most(maxTables, "at a time"), Share: shareOfPlaces, Beyond: "they wait, and after " + bodyWithin.String() + " it is 429"},
		{What: "time for a client to take an answer, or a piece of one that goes on", Most: answerWithin.String(), Beyond: "the connection is closed"},
		{What: "who may not ask, or asks for more than is theirs, and is told so", Most: most(maxRefusals, "at a time"), Beyond: "they are cut off"},
		{What: "bytes of a request's header", Most: size(maxHeader), Beyond: "431"},
		{What: "bytes of the node's own log", Most: size(mostNodeLog) + ", and as many of the log before", Beyond: "the log before goes; under a service manager it is that one's"},
		{What: "time for a request's header and body, each", Most: bodyWithin.String(), Beyond: "the connection is closed"},
		{What: "clients that trace", Most: most(maxWatchers, "clients"), Share: shareOfPlaces, Beyond: "429"},
		{What: "frames that a tracing client may be behind", Most: most(maxBehind, "frames"), Beyond: "they are counted as lost, and it is told how many"},
	}
}

func serviceLimits() []packet.Limit {
	most, size := packet.Most, packet.MostBytes
	return []packet.Limit{
		{What: "questions for names that wait for the nameserver", Most: most(maxQueued, "questions"), Share: most(queuedPerContainer, "questions"),
			Beyond: "the question is dropped", Reasons: []packet.Reason{packet.DNSBusy}},
		{What: "questions for names under way to the host's servers", Most: fmt.Sprintf("%d, or an eighth of `ulimit -n`", maxQueries), Share: most(queriesPerContainer, "questions"),
			Beyond: "the answer is REFUSED"},
		{What: "connections for names by TCP", Most: most(maxConns, "connections"), Share: fmt.Sprintf("%d, each with %d questions, for %v of silence", connsPerContainer, pendingPerConn, idleConn),
			Beyond: "the connection is closed"},
		{What: "DHCP messages that wait for the servers", Most: most(maxDHCP, "messages"), Share: most(dhcpPerContainer, "messages"),
			Beyond: "the message is dropped", Reasons: []packet.Reason{packet.DHCPBusy}},
		{What: "bytes that are read of resolv.conf", Most: size(maxResolvConf), Beyond: "the rest is not read"},
		{What: "bytes of state.json, and of leases.json", Most: size(maxState) + " and " + size(maxLeasesFile), Beyond: "the node does not start, and says which file"},
		{What: "bytes of what a node writes down of a container, and of all that run", Most: size(maxRecord) + " and " + size(maxRunning), Share: "each container its own", Beyond: "the next node does not adopt the container, and says so"},
		{What: "bytes of records that a node hands to another one, and descriptors with one message", Most: size(maxHanded) + ", and " + fmt.Sprint(handAtOnce), Beyond: "`up --replace` is refused, and the node that runs goes on"},
		{What: "time for a node to become what another one is, in which frames pass and commands wait", Most: fmt.Sprintf("%v, and %v for each container and %v for each listening socket, %v in all", workWithin, workEach, workPort, workMost), Beyond: "`up --replace` is refused, and the node that runs goes on"},
		{What: "time in which traffic stands still meanwhile", Most: fmt.Sprintf("%v, and for what was taken %v for each flow, %v for each connection by the sockets of this host", stillWithin, flowEach, connectionEach),
			Beyond: fmt.Sprintf("likewise, and for %d times as long as traffic stood another one is refused", costsLess)},
		{What: "listening sockets that `port` tells of, and bytes of the kernel's table that are read", Most: fmt.Sprintf("%d and %s", maxListeners, size(maxSocketTable)),
			Share: "each container its own", Beyond: "the rest is not told"},
		{What: "bytes of a container's hosts and resolv.conf that are still kept up to date", Most: size(maxRewritten), Beyond: "somebody inside has made it his, and it stays as it is"},
	}
}
