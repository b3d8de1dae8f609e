package rmsctl

import "github.com/spf13/cobra"

func (a *app) documentCommands() []*cobra.Command { return nil }
