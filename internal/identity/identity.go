// Package identity says who is at the other end of a TLS connection between a mesh's processes.
//
// Every node has a certificate with one name, a SPIFFE ID in its URI: spiffe://holdfast.dev/mesh/<mesh>/node/<node>. The
// mesh's certificate authority (CA) signs it for a day; whoever renews it writes the file anew. Source reads the files at
// each handshake, so that neither a renewed certificate nor a new CA needs a restart, and a file that can't be read fails
// that handshake only. Both sides of a connection show a certificate; there is no TLS below 1.3 and no resumption, so
// nobody gets in on what was true earlier.
//
// The package keeps no state but the files and starts nothing.
package identity

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// The kinds of refusal.
var (
	// ErrUntrusted: no certificate, an expired one, or one that this mesh's CA did not sign.
	ErrUntrusted = errors.New("peer is not trusted")
	// ErrWrongName: a certificate of the CA that names somebody else.
	ErrWrongName = errors.New("peer is somebody else")
)

// trustDomain is the SPIFFE trust domain of all meshes; the path's mesh keeps them apart.
const trustDomain = "holdfast.dev"

// ID names a node of a mesh.
type ID struct{ Mesh, Node string }

// label is what a mesh's or a node's name may look like: it becomes one segment of a URI's path.
var label = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

// Check says why id can't be a name.
func (id ID) Check() error {
	for what, name := range map[string]string{"mesh": id.Mesh, "node": id.Node} {
		if !label.MatchString(name) {
			return fmt.Errorf("%s name %q: must be 1 to 63 letters, digits, dots, dashes or underscores", what, name)
		}
	}
	return nil
}

// URI is id's SPIFFE ID.
func (id ID) URI() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: trustDomain, Path: "/mesh/" + id.Mesh + "/node/" + id.Node}
}

func (id ID) String() string { return id.URI().String() }

// parse reads a SPIFFE ID. Only the spelling that URI writes is one.
func parse(u *url.URL) (ID, error) {
	parts := strings.Split(u.Path, "/")
	if len(parts) == 5 {
		id := ID{parts[2], parts[4]}
		if id.Check() == nil && u.String() == id.String() {
			return id, nil
		}
	}
	return ID{}, fmt.Errorf("%w: %.200q is no name of a node", ErrWrongName, u)
}

// Of is who is at the other end of a connection that this package's configurations made.
func Of(state tls.ConnectionState) (ID, error) {
	if len(state.PeerCertificates) == 0 {
		return ID{}, fmt.Errorf("%w: it has no certificate", ErrUntrusted)
	}
	uris := state.PeerCertificates[0].URIs
	if len(uris) != 1 {
		return ID{}, fmt.Errorf("%w: its certificate has %d names, want 1", ErrWrongName, len(uris))
	}
	return parse(uris[0])
}
