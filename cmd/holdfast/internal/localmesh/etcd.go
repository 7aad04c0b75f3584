package localmesh

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/identity"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
	"github.com/holdfast-mesh/holdfast/internal/supervise"
)

// EtcdOptions says which etcd a mesh uses: one of its own, or with Endpoints one that others run.
type EtcdOptions struct {
	// Members is how many the mesh's own has: 1, which talks plainly, or 3 or 5, which talk by TLS. 0 is 1.
	Members int
	// QuotaBytes bounds the file of each of the mesh's own; 0 is the default.
	QuotaBytes int64
	// Endpoints are "http://host:port", "https://host:port" or "host:port".
	Endpoints []string
	// Access is how they are reached.
	Access mesh.EtcdAccess
}

// check refuses what does not go together.
func (o EtcdOptions) check() error {
	switch {
	case len(o.Endpoints) > 0 && (o.Members != 0 || o.QuotaBytes != 0):
		return errors.New("--etcd-endpoints names an etcd that others run: --etcd-members and --etcd-quota-bytes are for the mesh's own")
	case len(o.Endpoints) == 0 && o.Access != (mesh.EtcdAccess{}):
		return errors.New("--etcd-ca, --etcd-cert, --etcd-key, --etcd-user, --etcd-password-file and --etcd-prefix go with --etcd-endpoints")
	case !slices.Contains([]int{0, 1, 3, 5}, o.Members):
		return fmt.Errorf("--etcd-members %d: must be 1, 3 or 5", o.Members)
	case o.QuotaBytes < 0:
		return fmt.Errorf("--etcd-quota-bytes %d: must not be negative", o.QuotaBytes)
	}
	return nil
}

// etcdMember is a member of the mesh's own etcd. Its addresses among members are in every member's data: they stay the
// same from run to run, unlike those of a member that is alone.
type etcdMember struct {
	Name string `json:"name"`
	Peer string `json:"peer"`
	// client is where it is reached in this run.
	client string
}

// etcdNames are the names of the mesh's own members' processes.
func (m *Mesh) etcdNames() []string {
	switch n := m.opts.Etcd.Members; {
	case len(m.opts.Etcd.Endpoints) > 0:
		return nil
	case n <= 1:
		return []string{etcdName}
	default:
		var out []string
		for i := range n {
			out = append(out, fmt.Sprintf("%s-%d", etcdName, i+1))
		}
		return out
	}
}

// layOutEtcd gives etcd its addresses in the topology.
// +checklocks:m.mu
func (m *Mesh) layOutEtcd() error {
	if o := m.opts.Etcd; len(o.Endpoints) > 0 {
		access := o.Access
		access.External = true
		m.topology.Etcd, m.topology.EtcdAccess = slices.Clone(o.Endpoints), &access
		return nil
	}
	var err error
	if m.etcd, err = m.etcdMembers(); err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	secure := len(m.etcd) > 1
	m.topology.Etcd = nil
	for i := range m.etcd {
		client, err := m.ports.free()
		if err != nil {
			return fmt.Errorf("etcd: %w", err)
		}
		m.etcd[i].client = plainOrSecure(secure, client)
		m.topology.Etcd = append(m.topology.Etcd, m.etcd[i].client)
	}
	if !secure {
		return nil
	}
	if m.etcdAuthority, err = identity.NewAuthority(m.paths.MeshName()+"-etcd", time.Now()); err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	if err := os.MkdirAll(m.paths.etcdFiles(), 0o700); err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	if err := replaceFile(m.paths.etcdFile("ca"), m.etcdAuthority.Certificate()); err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	client := m.paths.etcdFile(etcdClient)
	m.topology.EtcdAccess = &mesh.EtcdAccess{CA: m.paths.etcdFile("ca"), Cert: client, Key: client}
	return m.certifyEtcd(time.Now())
}

// etcdClient is the name in the certificate that is shown to etcd.
const etcdClient = "client"

// certifyEtcd gives the members of a cluster, and their clients, new certificates.
// +checklocks:m.mu
func (m *Mesh) certifyEtcd(now time.Time) error {
	if m.etcdAuthority == nil {
		return nil
	}
	names := []string{etcdClient}
	for _, e := range m.etcd {
		names = append(names, e.Name)
	}
	for _, name := range names {
		cert, err := m.etcdAuthority.IssueHost(name, []net.IP{net.ParseIP(host)}, now)
		if err != nil {
			return err
		}
		if err := replaceFile(m.paths.etcdFile(name), cert); err != nil {
			return fmt.Errorf("certificate of %s: %w", name, err)
		}
	}
	m.etcdCertified = now
	return nil
}

// etcdMembers are the members, with the addresses that they have among themselves.
func (m *Mesh) etcdMembers() ([]etcdMember, error) {
	names := m.etcdNames()
	file := filepath.Join(m.paths.EtcdData(), "members.json")
	var out []etcdMember
	data, err := os.ReadFile(file)
	switch {
	case err == nil:
		if err := json.Unmarshal(data, &out); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	default:
		if _, err := os.Stat(filepath.Join(m.paths.EtcdData(), "member")); err == nil {
			out = []etcdMember{{Name: etcdName}}
		}
	}
	if len(out) > 0 && len(out) != len(names) {
		return nil, fmt.Errorf("the data in %s is of %d members: start with --etcd-members %d, or remove all data with --reset", m.paths.Data, len(out), len(out))
	}
	if len(names) == 1 {
		peer, err := m.ports.free()
		return []etcdMember{{Name: etcdName, Peer: plainOrSecure(false, peer)}}, err
	}
	if len(out) > 0 {
		for _, e := range out {
			peer := strings.TrimPrefix(e.Peer, "https://")
			m.ports.keep(peer)
			if err := checkFree(peer); err != nil {
				return nil, fmt.Errorf("%s had the address %s among members and must have it again, but it is taken: %w", e.Name, e.Peer, err)
			}
		}
		return out, nil
	}
	for _, name := range names {
		peer, err := m.ports.free()
		if err != nil {
			return nil, err
		}
		out = append(out, etcdMember{Name: name, Peer: plainOrSecure(true, peer)})
	}
	if data, err = json.MarshalIndent(out, "", "  "); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(m.paths.EtcdData(), 0o700); err != nil {
		return nil, err
	}
	return out, replaceFile(file, data)
}

func plainOrSecure(secure bool, address string) string {
	if secure {
		return "https://" + address
	}
	return "http://" + address
}

// startEtcd starts the mesh's own etcd, and nothing where it uses another.
func (m *Mesh) startEtcd() ([]*supervise.Process, error) {
	m.mu.Lock()
	members := slices.Clone(m.etcd)
	m.mu.Unlock()
	var cluster []string
	for _, e := range members {
		cluster = append(cluster, e.Name+"="+e.Peer)
	}
	var out []*supervise.Process
	for _, e := range members {
		p, err := m.run(e.Name, m.etcdSpec(e, strings.Join(cluster, ",")))
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func (m *Mesh) etcdSpec(e etcdMember, cluster string) supervise.Spec {
	args := []string{"etcd", "--client", e.client, "--peer", e.Peer, "--http", m.paths.EtcdHTTPSocket(e.Name)}
	if e.Name == etcdName {
		args = append(args, "--data", m.paths.EtcdData())
	} else {
		ca, cert := m.paths.etcdFile("ca"), m.paths.etcdFile(e.Name)
		args = append(args, "--data", filepath.Join(m.paths.EtcdData(), e.Name), "--name", e.Name, "--initial-cluster", cluster,
			"--ca", ca, "--cert", cert, "--key", cert, "--peer-ca", ca, "--peer-cert", cert, "--peer-key", cert)
	}
	if q := m.opts.Etcd.QuotaBytes; q != 0 {
		args = append(args, "--quota-bytes", fmt.Sprint(q))
	}
	s := m.self(e.Name, args...)
	s.Env = append(s.Env, etcdMemory)
	s.Ready = readyz(m.paths.EtcdHTTPSocket(e.Name))
	return s
}

// etcdStatus is the mesh's own only member, or the first of several, and all of them where there are several.
// +checklocks:m.mu
func (m *Mesh) etcdStatus() (first ProcessStatus, members map[string]ProcessStatus) {
	names := m.etcdNames()
	if len(names) == 0 {
		return ProcessStatus{State: External}, nil
	}
	if len(names) > 1 {
		members = map[string]ProcessStatus{}
		for _, name := range names {
			members[name] = m.processStatus(m.single[name])
		}
	}
	return m.processStatus(m.single[names[0]]), members
}

// EtcdProcesses has each of the mesh's own members of etcd by its name; an etcd that others run is one process of that
// state.
func (s *Status) EtcdProcesses() map[string]ProcessStatus {
	if len(s.EtcdMembers) > 0 {
		return s.EtcdMembers
	}
	return map[string]ProcessStatus{etcdName: s.Etcd}
}
