// istiod-lite is the real istiod (pilot/pkg/bootstrap) without a cluster: its configuration is a
// directory of Istio YAML, which it watches. Its xDS ports speak plaintext, and TLS where one is named.
// The objects of a cluster may be given: pods, for its authority to look up who runs on which node, and services.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"reflect"
	"strings"
	"syscall"
	"time"
	"unsafe"

	authentication "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"istio.io/istio/pilot/pkg/bootstrap"
	"istio.io/istio/pilot/pkg/serviceregistry/provider"
	"istio.io/istio/pkg/activenotifier"
	"istio.io/istio/pkg/cluster"
	"istio.io/istio/pkg/config/constants"
	"istio.io/istio/pkg/keepalive"
	"istio.io/istio/pkg/kube"
	"istio.io/istio/pkg/log"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "istiod-lite:", err)
		os.Exit(1)
	}
}

func run() error {
	configDir := flag.String("config-dir", "", "directory of Istio YAML, watched")
	meshConfig := flag.String("mesh-config", "", "file with the MeshConfig")
	grpcAddr := flag.String("grpc", "127.0.0.1:15010", "xDS, plaintext")
	secureAddr := flag.String("secure-grpc", "", "xDS and the authority for certificates, TLS; none if empty")
	httpAddr := flag.String("http", "127.0.0.1:8080", "readiness and debug")
	monitoringAddr := flag.String("monitoring", "127.0.0.1:15014", "metrics and debug")
	objectsFile := flag.String("cluster", "", "file with objects in YAML that its cluster has; none if empty")
	services := flag.Bool("cluster-services", false, "the mesh has the services of the cluster, too")
	flag.Parse()
	if *configDir == "" {
		return errors.New("-config-dir is required")
	}
	if err := log.Configure(log.DefaultOptions()); err != nil {
		return err
	}

	start := time.Now()
	args := bootstrap.NewPilotArgs(func(p *bootstrap.PilotArgs) {
		p.Namespace = "istio-system"
		p.PodName = "istiod-lite"
		p.ShutdownDuration = time.Second
		p.MeshConfigFile = *meshConfig
		p.KeepaliveOptions = keepalive.DefaultOption()
		p.RegistryOptions.FileDir = *configDir
		p.RegistryOptions.Registries = nil
		if *services {
			p.RegistryOptions.Registries = []string{string(provider.Kubernetes)}
		}
		p.RegistryOptions.KubeOptions.DomainSuffix = constants.DefaultClusterLocalDomain
		p.RegistryOptions.KubeOptions.ClusterID = cluster.ID("Kubernetes")
		p.RegistryOptions.KubeOptions.StatusWritingEnabled = activenotifier.New(false)
		p.ServerOptions = bootstrap.DiscoveryServerOptions{
			HTTPAddr: *httpAddr, GRPCAddr: *grpcAddr, SecureGRPCAddr: *secureAddr, MonitoringAddr: *monitoringAddr,
			TLSOptions: bootstrap.TLSOptions{TLSMinVersion: bootstrap.TLSMinVersion1_2},
		}
	})
	if err := args.Complete(); err != nil {
		return err
	}
	objects, err := readObjects(*objectsFile)
	if err != nil {
		return err
	}
	server, err := bootstrap.NewServer(args, func(s *bootstrap.Server) { injectFakeCluster(s, objects) })
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	if err := server.Start(stop); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "istiod-lite ready in %v\n", time.Since(start))

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	<-signals
	close(stop)
	server.WaitUntilCompletion()
	return nil
}

// readObjects returns the Kubernetes objects of a file of YAML documents.
func readObjects(file string) ([]runtime.Object, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var objects []runtime.Object
	for _, document := range strings.Split("\n"+string(text), "\n---\n") {
		if strings.TrimSpace(document) == "" {
			continue
		}
		object, _, err := kube.IstioCodec.UniversalDeserializer().Decode([]byte(document), nil, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		objects = append(objects, object)
	}
	return objects, nil
}

// injectFakeCluster gives the server an in-memory Kubernetes with these objects. Since Istio 1.30 NewServer
// dereferences its multicluster controller, which is nil without a Kubernetes client, and the field
// that holds the client is not exported.
func injectFakeCluster(s *bootstrap.Server, objects []runtime.Object) {
	field := reflect.ValueOf(s).Elem().FieldByName("kubeClient")
	kubernetes := kube.NewFakeClient(objects...)
	kubernetes.Kube().(*fake.Clientset).PrependReactor("create", "tokenreviews", reviewToken)
	client := reflect.ValueOf(kubernetes)
	reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem().Set(client)
}

// reviewToken takes "fake:<namespace>:<service account>:<pod>:<uid of the pod>" for the token of that service account.
func reviewToken(action clienttesting.Action) (bool, runtime.Object, error) {
	review := action.(clienttesting.CreateAction).GetObject().(*authentication.TokenReview).DeepCopy()
	parts := strings.Split(review.Spec.Token, ":")
	if len(parts) != 5 || parts[0] != "fake" {
		review.Status = authentication.TokenReviewStatus{Error: "not a token of this cluster"}
		return true, review, nil
	}
	review.Status = authentication.TokenReviewStatus{
		Authenticated: true,
		Audiences:     review.Spec.Audiences,
		User: authentication.UserInfo{
			Username: "system:serviceaccount:" + parts[1] + ":" + parts[2],
			Groups:   []string{"system:serviceaccounts", "system:authenticated"},
			Extra: map[string]authentication.ExtraValue{
				"authentication.kubernetes.io/pod-name": {parts[3]},
				"authentication.kubernetes.io/pod-uid":  {parts[4]},
			},
		},
	}
	return true, review, nil
}
