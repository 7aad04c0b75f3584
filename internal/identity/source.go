package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Source makes TLS configurations of the files that hold a node's identity.
type Source struct {
	// Self is this node.
	Self ID
	// CA is the file of the CAs' certificates; during a change of the CA it has both.
	CA string
	// Identity is the file of this node's certificate and key, as Authority.Issue writes it. Only its owner may read it.
	Identity string
	// Now is the clock, time.Now if nil.
	Now func() time.Time
}

// Check reads the files and says what is wrong with them.
func (s *Source) Check() error {
	_, err := s.certificate()
	return err
}

// Client is a configuration for a connection to node; empty means any node of this mesh, whose name the caller then checks
// (see Of).
func (s *Source) Client(node string) *tls.Config {
	c := s.config(node, x509.ExtKeyUsageServerAuth)
	// The standard check wants a host's name; VerifyConnection does it all instead.
	c.InsecureSkipVerify = true
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return s.certificate() }
	return c
}

// Server is a configuration for connections from any node of this mesh.
func (s *Source) Server() *tls.Config {
	c := s.config("", x509.ExtKeyUsageClientAuth)
	c.ClientAuth = tls.RequireAnyClientCert // That it is a good one VerifyConnection sees to.
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate() }
	return c
}

func (s *Source) config(node string, usage x509.ExtKeyUsage) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, Time: s.now,
		VerifyConnection: func(state tls.ConnectionState) error { return s.verify(state, node, usage) },
	}
}

// verify is the whole check of a peer: signed by a CA of the file, now, for this usage, with the name of a node of this
// mesh, and of node where that is not empty.
func (s *Source) verify(state tls.ConnectionState, node string, usage x509.ExtKeyUsage) error {
	if len(state.PeerCertificates) == 0 {
		return fmt.Errorf("%w: it has no certificate", ErrUntrusted)
	}
	data, err := read(s.CA)
	if err != nil {
		return fmt.Errorf("CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return fmt.Errorf("CA: %s has no certificate", s.CA)
	}
	// Nodes' certificates are signed by a CA itself: what else a peer sends is not looked at.
	_, err = state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, CurrentTime: s.now(), KeyUsages: []x509.ExtKeyUsage{usage}})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	id, err := Of(state)
	switch {
	case err != nil:
		return err
	case id.Mesh != s.Self.Mesh:
		return fmt.Errorf("%w: its certificate is of the mesh %s, not %s", ErrWrongName, id.Mesh, s.Self.Mesh)
	case node != "" && id.Node != node:
		return fmt.Errorf("%w: its certificate names %s, not %s", ErrWrongName, id.Node, node)
	}
	return nil
}

// certificate reads this node's.
func (s *Source) certificate() (*tls.Certificate, error) {
	info, err := os.Stat(s.Identity)
	if err != nil {
		return nil, fmt.Errorf("own certificate: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("own certificate: %s has a private key and others may read it (mode %v): chmod 600", s.Identity, info.Mode().Perm())
	}
	data, err := read(s.Identity)
	if err != nil {
		return nil, fmt.Errorf("own certificate: %w", err)
	}
	c, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, fmt.Errorf("own certificate: %s: %w", s.Identity, err)
	}
	id, err := Of(tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.Leaf}})
	switch {
	case err != nil:
		return nil, fmt.Errorf("own certificate: %w", err)
	case id != s.Self:
		return nil, fmt.Errorf("own certificate: %s names %s, this node is %s", s.Identity, id, s.Self)
	}
	return &c, nil
}

func (s *Source) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// read reads a small file.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = errors.New("file is too large")
	}
	return data, err
}
