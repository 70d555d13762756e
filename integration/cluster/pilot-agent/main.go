// pilot-agent is Istio's own agent of a sidecar, of the same release as the istiod of the test cluster: with it, and with the
// stock Envoy, the cluster's sidecars are real ones.
package main

import (
	"os"

	meshconfig "istio.io/api/mesh/v1alpha1"
	"istio.io/istio/pilot/cmd/pilot-agent/app"
	istioagent "istio.io/istio/pkg/istio-agent"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/security"
	"istio.io/istio/security/pkg/nodeagent/sds"
)

func main() {
	log.EnableKlogWithCobra()
	certificates := func(options *security.Options, secrets security.SecretManager, keys *meshconfig.PrivateKeyProvider) istioagent.SDSService {
		return sds.NewServer(options, secrets, keys)
	}
	if err := app.NewRootCommand(certificates).Execute(); err != nil {
		log.Error(err)
		os.Exit(1)
	}
}
