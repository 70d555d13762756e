// adsd is a plain control plane for Envoy, built on go-control-plane as most are: it serves every node the resources of one
// file, state of the world and delta, and tells over HTTP what its clients answered.
//
// The file is a DiscoveryResponse in JSON or YAML: `version_info`, and `resources` of any type with an `@type`. It is
// read again when it changes; one that cannot be read changes nothing.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	// What a file may hold inside an Any.
	_ "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "adsd:", err)
		os.Exit(1)
	}
}

func run() error {
	file := flag.String("file", "", "the resources to serve")
	grpcAddr := flag.String("grpc", "127.0.0.1:18000", "ADS, plaintext")
	httpAddr := flag.String("http", "127.0.0.1:18001", "GET /status")
	flag.Parse()
	if *file == "" {
		return errors.New("-file is required")
	}

	snapshots := cache.NewSnapshotCache(true, everyNode{}, nil)
	text, err := load(snapshots, *file, nil)
	if err != nil {
		return err
	}
	go follow(snapshots, *file, text)

	log := &answers{Acked: map[string]string{}}
	listener, err := net.Listen("tcp", *grpcAddr)
	if err != nil {
		return err
	}
	ads := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(ads, server.NewServer(context.Background(), snapshots, log.callbacks()))
	http.Handle("/status", log)
	go func() {
		fmt.Fprintln(os.Stderr, "adsd:", http.ListenAndServe(*httpAddr, nil))
		os.Exit(1)
	}()
	return ads.Serve(listener)
}

type everyNode struct{}

func (everyNode) ID(*core.Node) string { return "every node" }

// follow looks at the file ten times a second.
func follow(snapshots cache.SnapshotCache, file string, text []byte) {
	for range time.Tick(100 * time.Millisecond) {
		read, err := load(snapshots, file, text)
		if err != nil {
			fmt.Fprintln(os.Stderr, "adsd: not taken:", err)
		}
		if read != nil {
			text = read
		}
	}
}

// load serves the file unless its text is the known one, and returns the text.
func load(snapshots cache.SnapshotCache, file string, known []byte) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil || string(text) == string(known) {
		return nil, err
	}
	asJSON, err := yaml.YAMLToJSON(text)
	if err != nil {
		return text, err
	}
	var content discovery.DiscoveryResponse
	if err := protojson.Unmarshal(asJSON, &content); err != nil {
		return text, err
	}
	byType := map[string][]types.Resource{}
	for _, any := range content.Resources {
		resource, err := any.UnmarshalNew()
		if err != nil {
			return text, err
		}
		byType[any.TypeUrl] = append(byType[any.TypeUrl], resource)
	}
	snapshot, err := cache.NewSnapshot(content.VersionInfo, byType)
	if err != nil {
		return text, err
	}
	return text, snapshots.SetSnapshot(context.Background(), everyNode{}.ID(nil), snapshot)
}

// answers is what clients said about what they were sent.
type answers struct {
	mutex sync.Mutex
	// Streams that were opened, and that are open.
	Opened int `json:"opened"`
	Open   int `json:"open"`
	// By type, the nonce that was accepted last.
	Acked map[string]string `json:"acked"`
	Nacks []nack            `json:"nacks"`
}

type nack struct {
	Type string `json:"type"`
	// The version in force at the client; state of the world only.
	Version string `json:"version"`
	Detail  string `json:"detail"`
}

func (a *answers) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	_ = json.NewEncoder(w).Encode(a)
}

func (a *answers) stream(change int) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.Open += change
	a.Opened += max(change, 0)
}

func (a *answers) answer(typeURL, version, nonce string, fault *rpcstatus.Status) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	switch {
	case fault != nil:
		a.Nacks = append(a.Nacks, nack{typeURL, version, fault.GetMessage()})
	case nonce != "":
		a.Acked[typeURL] = nonce
	}
}

func (a *answers) callbacks() server.Callbacks {
	return server.CallbackFuncs{
		StreamOpenFunc:        func(context.Context, int64, string) error { a.stream(1); return nil },
		StreamClosedFunc:      func(int64, *core.Node) { a.stream(-1) },
		DeltaStreamOpenFunc:   func(context.Context, int64, string) error { a.stream(1); return nil },
		DeltaStreamClosedFunc: func(int64, *core.Node) { a.stream(-1) },
		StreamRequestFunc: func(_ int64, r *discovery.DiscoveryRequest) error {
			a.answer(r.TypeUrl, r.VersionInfo, r.ResponseNonce, r.ErrorDetail)
			return nil
		},
		StreamDeltaRequestFunc: func(_ int64, r *discovery.DeltaDiscoveryRequest) error {
			a.answer(r.TypeUrl, "", r.ResponseNonce, r.ErrorDetail)
			return nil
		},
	}
}
