// istioctl is Istio's own command line, of the same release as istiod-lite: the tests let it read what the agent answers
// in the place of a sidecar.
package main

import (
	"os"

	"istio.io/istio/istioctl/cmd"
)

func main() {
	if err := cmd.GetRootCmd(os.Args[1:]).Execute(); err != nil {
		os.Exit(cmd.GetExitCode(err))
	}
}
