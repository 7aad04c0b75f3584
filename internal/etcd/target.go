package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// TLS names files in PEM; "" where there is none. They are read again at each handshake, so that they may be replaced
// while they are used.
type TLS struct{ CA, Cert, Key string }

// target is where one member is reached.
type target struct {
	// name is the endpoint as it was configured, address what gRPC dials.
	name, address string
	credentials   credentials.TransportCredentials
}

// targets checks the endpoints, and the files once.
func targets(cfg ClientConfig) ([]target, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("no endpoint")
	}
	var out []target
	secure := false
	for _, e := range cfg.Endpoints {
		address, creds := e, insecure.NewCredentials()
		if rest, ok := strings.CutPrefix(e, "https://"); ok {
			address, creds, secure = rest, fileCredentials{cfg.TLS}, true
		} else if rest, ok := strings.CutPrefix(e, "http://"); ok {
			address = rest
		}
		address = strings.TrimSuffix(address, "/")
		host, port, err := net.SplitHostPort(address)
		if _, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || host == "" {
			return nil, fmt.Errorf("endpoint %q: must be http://HOST:PORT or https://HOST:PORT", e)
		}
		out = append(out, target{e, "dns:///" + address, creds})
	}
	if !secure && cfg.TLS != (TLS{}) {
		return nil, errors.New("certificates are given, but no endpoint is https://")
	}
	if secure {
		if _, err := cfg.TLS.Client(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Client is the configuration of a handshake with a server.
func (t TLS) Client() (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("CA: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA: no certificate in %s", t.CA)
		}
	}
	if (t.Cert == "") != (t.Key == "") {
		return nil, errors.New("a certificate needs its key, and a key its certificate")
	}
	if t.Cert != "" {
		cert, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("certificate: %w", err)
		}
		out.Certificates = []tls.Certificate{cert}
	}
	return out, nil
}

// fileCredentials reads the files at each handshake.
type fileCredentials struct{ files TLS }

func (f fileCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	cfg, err := f.files.Client()
	if err != nil {
		return nil, nil, err
	}
	return credentials.NewTLS(cfg).ClientHandshake(ctx, authority, conn)
}

func (f fileCredentials) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("not a server")
}

func (f fileCredentials) Info() credentials.ProtocolInfo { return credentials.NewTLS(nil).Info() }

func (f fileCredentials) Clone() credentials.TransportCredentials { return f }

func (f fileCredentials) OverrideServerName(string) error {
	return errors.New("the server's name is its endpoint's")
}
