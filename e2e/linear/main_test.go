// Package linear holds strong entities to their promise: whatever breaks, what callers see is what one copy that does one
// command at a time could have shown them.
//
// Callers read and write registers through the Envoys of a real mesh on a real etcd cluster of three, while processes are
// killed and paused and links are cut. What they saw is a history; porcupine looks for an order of it that a plain register
// allows. A run that carried too little load, or broke too little, fails: it would prove nothing.
//
// The tests build nothing: `make e2e` builds first. The registers' service is this test's own binary.
package linear

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"
)

var (
	runs     = flag.Int("linear.runs", 3, "how many runs")
	runTime  = flag.Duration("linear.time", time.Minute, "how long callers call in one run")
	seed     = flag.Uint64("linear.seed", 0, "what the faults and calls follow; 0: another one each time")
	only     = flag.String("linear.faults", "", "only faults whose names match")
	hold     = flag.Duration("linear.hold", faultTime, "how long each fault lasts")
	stopping = flag.Bool("linear.stop", false, "stop at the first history that is not linearizable")
	results  = flag.String("linear.results", "", "folder that gets each history as a page (default: those that are illegal, in a temporary folder)")
	page     = flag.String("linear.page", "", "file that gets the page of the last history's busiest register")
	root     = flag.String("linear.root", "", "folder with bin/holdfast and all that it needs (default: the repository)")
)

func TestMain(m *testing.M) {
	if os.Getenv(serveVariable) != "" {
		if err := serveRegisters(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	if _, err := regexp.Compile(*only); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(m.Run())
}
