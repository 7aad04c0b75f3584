package localmesh

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/identity"
)

// newAuthority makes this run's CA, whose certificate every store reads.
func (m *Mesh) newAuthority(now time.Time) (err error) {
	if m.authority, err = identity.NewAuthority(m.paths.MeshName(), now); err != nil {
		return err
	}
	if err := replaceFile(m.paths.CA(), m.authority.Certificate()); err != nil {
		return fmt.Errorf("CA: %w", err)
	}
	return nil
}

// certify gives a node a new certificate.
// +checklocks:m.mu
func (m *Mesh) certify(node string, now time.Time) error {
	cert, err := m.authority.Issue(node, now)
	if err != nil {
		return err
	}
	if err := replaceFile(m.paths.Identity(node), cert); err != nil {
		return fmt.Errorf("certificate of %s: %w", node, err)
	}
	m.certified[node] = now
	return nil
}

// renew gives each node, and each member of etcd, a new certificate whose present one is in the second half of its life.
func (m *Mesh) renew(now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, n := range m.nodes {
		if now.Sub(m.certified[n.Name]) >= identity.Life/2 {
			errs = append(errs, m.certify(n.Name, now))
		}
	}
	if m.etcdAuthority != nil && now.Sub(m.etcdCertified) >= identity.Life/2 {
		errs = append(errs, m.certifyEtcd(now))
	}
	return errors.Join(errs...)
}

// keep does what has to be done again and again while the mesh runs.
func (m *Mesh) keep(ctx context.Context) {
	certify, cut := time.NewTicker(certifyEvery), time.NewTicker(cutEvery)
	defer certify.Stop()
	defer cut.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-certify.C:
			// The wall clock: a laptop may have slept.
			if err := m.renew(time.Now().Round(0)); err != nil {
				m.progress("warning: %v; trying again", err)
			}
		case <-cut.C:
			m.keepCut(ctx)
		}
	}
}

// replaceFile writes a private file so that whoever reads it sees the old one or the new one.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // Of mode 0600.
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
