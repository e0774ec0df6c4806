// Command fairlead runs commands of this machine in containers and connects
// them by a switch that lives in one ordinary process.
//
//	fairlead run -d --name web -- fairlead probe http-server
//	fairlead run -- fairlead probe get http://172.17.0.2/
//	fairlead show switch
//
// Every command is a client of a node (package node), which the first `run`
// starts in the background; only `run`, `exec` and `network connect` do more
// than ask: they make namespaces and hand descriptors to the node. The exit
// status is 125 for every error of fairlead itself, as Docker's `run` has it.
//
// The files: root.go the command tree and how it fails, then one file for each
// family of commands; table.go and words.go have what they print.
package main

import (
	"os"

	"fairlead/node/box"
)

// version is that of client and node. A release sets it by -ldflags -X.
var version = "0.1.0"

func main() {
	// First of all: a container's init is this binary too, and lives as long
	// as the container with whatever was set up before this call.
	box.Main()
	os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
}
