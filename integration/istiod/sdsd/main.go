// sdsd serves the two secrets that every Istio sidecar expects from its own pilot-agent and not from
// istiod: `default` (a certificate) and `ROOTCA` (the root that signed it). Without them Envoy keeps
// every cluster that refers to them warming for ever. Both come from files, or are made at start and die with the process.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secret "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "sdsd:", err)
		os.Exit(1)
	}
}

func run() error {
	socket := flag.String("socket", "", "Unix socket to listen on")
	identity := flag.String("identity", "spiffe://cluster.local/ns/default/sa/default", "SPIFFE id of the certificate")
	certificate := flag.String("certificate", "", "PEM file of a certificate, in the place of one that is made; with -key and -root")
	key := flag.String("key", "", "PEM file of its key")
	root := flag.String("root", "", "PEM file of the root that signed it")
	flag.Parse()
	var secrets map[string]*tls.Secret
	var err error
	if *certificate != "" {
		secrets, err = readSecrets(*certificate, *key, *root)
	} else {
		secrets, err = newSecrets(*identity)
	}
	if err != nil {
		return err
	}
	listener, err := net.Listen("unix", *socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	secret.RegisterSecretDiscoveryServiceServer(server, &sds{secrets: secrets})
	return server.Serve(listener)
}

type sds struct {
	secret.UnimplementedSecretDiscoveryServiceServer
	secrets map[string]*tls.Secret
}

func (s *sds) StreamSecrets(stream secret.SecretDiscoveryService_StreamSecretsServer) error {
	for nonce := 0; ; nonce++ {
		request, err := stream.Recv()
		if err != nil {
			return err
		}
		if request.ErrorDetail != nil {
			fmt.Fprintln(os.Stderr, "sdsd: rejected by the proxy:", request.ErrorDetail)
		}
		if request.ResponseNonce != "" {
			continue
		}
		response := &discovery.DiscoveryResponse{TypeUrl: request.TypeUrl, VersionInfo: "1", Nonce: fmt.Sprint(nonce)}
		for _, name := range request.ResourceNames {
			if s.secrets[name] == nil {
				continue
			}
			resource, err := anypb.New(s.secrets[name])
			if err != nil {
				return err
			}
			response.Resources = append(response.Resources, resource)
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}

func newSecrets(identity string) (map[string]*tls.Secret, error) {
	spiffe, err := url.Parse(identity)
	if err != nil {
		return nil, err
	}
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "orlop test root"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), URIs: []*url.URL{spiffe}, NotBefore: root.NotBefore, NotAfter: root.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), rootKey)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return secretsOf(encode("CERTIFICATE", leafDER), encode("PRIVATE KEY", keyDER), encode("CERTIFICATE", rootDER)), nil
}

func readSecrets(certificate, key, root string) (map[string]*tls.Secret, error) {
	var read [3][]byte
	for i, file := range []string{certificate, key, root} {
		var err error
		if read[i], err = os.ReadFile(file); err != nil {
			return nil, err
		}
	}
	return secretsOf(read[0], read[1], read[2]), nil
}

func secretsOf(certificate, key, root []byte) map[string]*tls.Secret {
	return map[string]*tls.Secret{
		"default": {Name: "default", Type: &tls.Secret_TlsCertificate{TlsCertificate: &tls.TlsCertificate{
			CertificateChain: inline(certificate), PrivateKey: inline(key),
		}}},
		"ROOTCA": {Name: "ROOTCA", Type: &tls.Secret_ValidationContext{ValidationContext: &tls.CertificateValidationContext{
			TrustedCa: inline(root),
		}}},
	}
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func inline(bytes []byte) *core.DataSource {
	return &core.DataSource{Specifier: &core.DataSource_InlineBytes{InlineBytes: bytes}}
}
