// Command bench measures what Holdfast costs: the same calls to a service directly, through an Envoy without our filter and
// through a node of ours, in turns, so that whatever else the machine does hits all of them alike.
//
//	bench                 the table
//	bench store           the store alone, without Envoys: operations by type and level, memory, bytes, convergence, joins
//	bench strong          strong commits through Envoy and at the store, beside what etcd alone does
//	bench probe           time from acknowledgement to visible everywhere, memory and start time of the six-node demo
//
// Server, load generator and proxies are processes of their own; the figures of one machine are good for ratios only.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/holdfast-mesh/holdfast/bench/store"
	strongbench "github.com/holdfast-mesh/holdfast/bench/strong"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	verb := ""
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		verb, args = args[0], args[1:]
	}
	switch verb {
	case "":
		return table(ctx, args)
	case "probe":
		return probe(ctx, args)
	case "store":
		return store.Run(ctx, args)
	case "strong":
		return strongbench.Run(ctx, args)
	case "serve":
		return serve(ctx)
	case "load":
		return load(ctx, args)
	default:
		return fmt.Errorf("unknown command %q: it is store, strong or probe, or nothing for the table", verb)
	}
}
