package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"
)

// Authority is a mesh's CA. Its key is in memory only.
type Authority struct {
	mesh string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes a CA for the mesh of that name.
func NewAuthority(mesh string, now time.Time) (*Authority, error) {
	if err := (ID{mesh, "x"}).Check(); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make CA: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Holdfast CA of mesh " + mesh},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
		// Whoever trusts this CA trusts it with these names only.
		PermittedURIDomains: []string{trustDomain}, PermittedDNSDomainsCritical: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make CA: %w", err)
	}
	return &Authority{mesh, cert, key}, nil
}

// Certificate is what others need to trust the CA, in PEM. Several make a bundle, one after the other.
func (a *Authority) Certificate() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: a.cert.Raw})
}

// Issue makes a node's certificate with its key, in PEM: one file, so that it is replaced as a whole.
func (a *Authority) Issue(node string, now time.Time) ([]byte, error) {
	return a.IssueHost(node, nil, now)
}

// IssueHost makes the certificate of a node that is also known by addresses: to clients that know nothing of nodes.
func (a *Authority) IssueHost(node string, addresses []net.IP, now time.Time) ([]byte, error) {
	id := ID{a.mesh, node}
	if err := id.Check(); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", node, err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: node}, URIs: []*url.URL{id.URI()}, IPAddresses: addresses,
		NotBefore: now.Add(-backdate), NotAfter: now.Add(Life), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", node, err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", node, err)
	}
	var out bytes.Buffer
	for _, b := range []*pem.Block{{Type: certBlock, Bytes: der}, {Type: keyBlock, Bytes: keyDER}} {
		if err := pem.Encode(&out, b); err != nil {
			return nil, fmt.Errorf("certificate of %s: %w", node, err)
		}
	}
	return out.Bytes(), nil
}

func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits))
	if err != nil {
		return nil, fmt.Errorf("serial number: %w", err)
	}
	return serial, nil
}
