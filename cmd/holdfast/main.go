// Command holdfast is all of Holdfast but the Envoys: the local mesh (`up`), the processes it starts, and people's tools.
package main

import (
	"os"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
