// Command libholdfast is the filter as a shared library that Envoy loads: build it with -buildmode=c-shared.
package main

import "github.com/holdfast-mesh/holdfast/filter/host/dynmod"

func init() { dynmod.Register() }

func main() {}
