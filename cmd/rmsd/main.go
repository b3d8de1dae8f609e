// Command rmsd is the open rights management service. See rmsd --help.
package main

import (
	"os"

	"github.com/openrms/rms/internal/rmsd"
)

func main() { os.Exit(rmsd.Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
