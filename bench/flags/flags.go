// Package flags is the command line of `fairlead bench`. Two programs read it:
// fairlead, which helps, completes and writes the manual, and fairlead-bench,
// which measures. They are two because what measures links gopacket, and
// fairlead is every container's init (docs/decisions/init-memory.md).
//
// It has no state; a set of flags belongs to who made it.
package flags

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// Options are what the command line says.
type Options struct {
	Only    []string // words of names of workloads; none: all
	Paths   []string // names of paths; none: those measured unasked
	Pairs   int
	Few     int // pairs of workloads no bar is about
	Seconds int
	Quick   bool
	Check   bool
	List    bool
	JSON    string
	Resume  string
	Show    string
	SVG     string
	Fill    []string // documents
}

// MinPairs is how many pairs a bar needs at least: a single ratio means nothing
// on a machine whose figures vary by a fifth.
const MinPairs = 7

// What is measured unless somebody says otherwise. With these the whole run
// takes less than an hour, and a quick one two minutes.
const (
	seconds                  = 2
	few                      = 4
	quickPairs, quickSeconds = few, 1
)

// Define adds the flags to a set and returns where their values are.
func Define(set *pflag.FlagSet) *Options {
	o := new(Options)
	set.SortFlags = false
	set.StringSliceVar(&o.Only, "only", nil, "Measure only workloads whose name holds one of these `WORDS`, comma between them")
	set.StringSliceVar(&o.Paths, "paths", nil, "Measure only these `PATHS`, comma between them, also those that are not measured unasked")
	set.BoolVar(&o.Quick, "quick", false, fmt.Sprintf("Two minutes: eight workloads, only fairlead, the raw relay and the kernel, %d rounds of a second", quickPairs))
	set.IntVar(&o.Pairs, "pairs", 0, fmt.Sprintf("Measure each path `N` times; bars need %d, which is what is done unasked (%d where there is no bar)", MinPairs, few))
	set.IntVar(&o.Seconds, "seconds", 0, fmt.Sprintf("One measurement of throughput takes `N` seconds (default %d)", seconds))
	set.BoolVar(&o.Check, "check", false, "End with status 1 when a bar is not met, with 2 when none is missed but some are open, as when a peer is not installed")
	set.StringVar(&o.JSON, "json", "", "Write all figures to `FILE`, after each workload")
	set.StringVar(&o.Resume, "resume", "", "Go on with the run whose figures are in `FILE`, from --json, and write them there")
	set.StringVar(&o.Show, "show", "", "Print the figures in `FILE`, from --json, and measure nothing")
	set.StringVar(&o.SVG, "svg", "", "Draw charts into the folder `DIR`")
	set.StringSliceVar(&o.Fill, "fill", nil, "Put the figures into these `DOCUMENTS`, between <!-- bench: table --> and <!-- /bench -->")
	set.BoolVar(&o.List, "list", false, "Print the workloads and the paths, and measure nothing")
	return o
}

// Complete puts what is measured unasked where nothing was said, and refuses
// what makes no sense together.
func (o *Options) Complete(said func(name string) bool) error {
	switch {
	case said("pairs") && o.Pairs < 1:
		return fmt.Errorf("--pairs %d: at least 1", o.Pairs)
	case said("seconds") && o.Seconds < 1:
		return fmt.Errorf("--seconds %d: at least 1", o.Seconds)
	case o.Check && said("pairs") && o.Pairs < MinPairs:
		return fmt.Errorf("--check needs --pairs %d at least, else no bar can be met", MinPairs)
	case o.Resume != "" && o.JSON != "":
		return errors.New("--resume FILE writes to FILE again, so --json has no place beside it")
	case o.Show != "" && (o.Resume != "" || o.JSON != ""):
		return errors.New("--show measures nothing, so --json and --resume have no place beside it")
	}
	if o.Show != "" {
		for _, name := range []string{"only", "paths", "quick", "pairs", "seconds"} {
			if said(name) {
				return fmt.Errorf("--show prints all that FILE has, so --%s has no place beside it", name)
			}
		}
	}
	o.Few = o.Pairs
	if !said("pairs") {
		o.Pairs, o.Few = MinPairs, few
		if o.Quick && !o.Check {
			o.Pairs = quickPairs
		}
	}
	if !said("seconds") {
		o.Seconds = seconds
		if o.Quick {
			o.Seconds = quickSeconds
		}
	}
	return nil
}

// Args are the arguments that say what a set was told.
func Args(set *pflag.FlagSet) (args []string) {
	set.Visit(func(f *pflag.Flag) {
		value := f.Value.String()
		if list, ok := f.Value.(pflag.SliceValue); ok {
			value = strings.Join(list.GetSlice(), ",")
		}
		args = append(args, "--"+f.Name+"="+value)
	})
	return args
}
