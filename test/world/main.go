// Command world runs a command in a world of its own and ends with its exit
// status:
//
//	go run ./test/world go test ./test/lab
//
// What a world is, package maker says. It is one process with one thread of
// control.
package main

import (
	"fmt"
	"os"

	"fairlead/test/world/maker"
)

func main() {
	maker.Play()
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: world COMMAND [ARGUMENT...]")
		os.Exit(maker.Failed)
	}
	os.Exit(maker.World{}.Run(args...))
}
