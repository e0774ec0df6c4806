package box

import (
	"os"
	"strings"
)

// The names this binary is called by when it is a child of ours.
const (
	initName = "fairlead-init"
	joinName = "fairlead-join"
)

// selfExe works in every namespace a child of ours is born in, and after the
// binary was replaced on disk.
const selfExe = "/proc/self/exe"

// channelFD is where both kinds of child find the channel they are born with.
const channelFD = 3

// Main runs init or the join helper and does not return when this process was
// started as one of them. Call it first thing in main.
func Main() {
	switch os.Args[0] {
	case initName:
		os.Exit(initMain())
	case joinName:
		os.Exit(joinMain())
	}
}

// childEnv is the environment of our own children, not of any command. What keeps
// an init small (docs/decisions/init-memory.md): one P; no collection before there
// are 1.6 MB (40 % of 4 MB), which a start does not take, because it would take more
// memory than it gives back; no huge pages for a heap of less than one. The rest is
// what a build with the race detector or with coverage wants to find.
func childEnv() []string {
	env := []string{"GOMAXPROCS=1", "GOGC=40", "GODEBUG=disablethp=1"}
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "GORACE=") || strings.HasPrefix(kv, "GOCOVERDIR=") {
			env = append(env, kv)
		}
	}
	return env
}
