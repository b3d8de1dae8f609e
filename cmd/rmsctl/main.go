// Command rmsctl protects documents, opens them, and manages who may.
package main

import (
	"os"

	"github.com/openrms/rms/internal/rmsctl"
)

func main() { os.Exit(rmsctl.Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
