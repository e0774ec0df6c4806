// Package api is what a node and its clients say to one another: the wire
// types under /v1, the client, and how descriptors travel.
//
// The control socket speaks HTTP and JSON, so curl works:
//
//	curl --unix-socket $XDG_RUNTIME_DIR/fairlead/control.sock http://node/v1/containers
//
// Descriptors cannot travel with an HTTP request (net/http discards them), so
// they go the way of Upgrade: the client asks for the protocol "fairlead-fd",
// the node answers 101, and then the connection carries one message of JSON
// with its descriptors in one sendmsg, and one answer (Done).
//
// The package holds no state; a Client may be used by any goroutine.
package api
