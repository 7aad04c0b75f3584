package localmesh

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Paths says where a mesh keeps its files. Data lives across restarts; Run holds sockets and what is written anew at
// each start, under a short path because a Unix socket's path holds 107 bytes.
type Paths struct {
	Data, Run string
}

// Locate returns the paths of the mesh that keeps its data in dataDir. It creates nothing.
func Locate(dataDir string) (Paths, error) {
	abs, err := filepath.Abs(dataDir)
	if err != nil {
		return Paths{}, fmt.Errorf("data directory: %w", err)
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	sum := sha256.Sum256([]byte(abs))
	run := fmt.Sprintf("/tmp/holdfast-%d-%s", os.Getuid(), hex.EncodeToString(sum[:4]))
	return Paths{Data: abs, Run: run}, nil
}

// The files in the run folder.
func (p Paths) XDSSocket() string       { return filepath.Join(p.Run, "xds.sock") }
func (p Paths) AdminSocket() string     { return filepath.Join(p.Run, "admin.sock") }
func (p Paths) UpSocket() string        { return filepath.Join(p.Run, "up.sock") }
func (p Paths) Topology() string        { return filepath.Join(p.Run, "mesh.json") }
func (p Paths) GossipKey() string       { return filepath.Join(p.Run, "gossip.key") }
func (p Paths) CA() string              { return filepath.Join(p.Run, "ca.pem") }
func (p Paths) Node(name string) string { return filepath.Join(p.Run, name) }

// EtcdHTTPSocket serves the /readyz and /metrics of a member of etcd.
func (p Paths) EtcdHTTPSocket(member string) string {
	return filepath.Join(p.Run, member+"-http.sock")
}

// etcdFiles has the certificates of etcd's members and of their clients.
func (p Paths) etcdFiles() string { return filepath.Join(p.Run, "etcd") }

func (p Paths) etcdFile(name string) string { return filepath.Join(p.etcdFiles(), name+".pem") }

// StoreHTTPSocket serves a store's /readyz and /metrics.
func (p Paths) StoreHTTPSocket(node string) string {
	return filepath.Join(p.Run, node, "store-http.sock")
}

// Identity is the certificate of a node's store, with its key.
func (p Paths) Identity(node string) string { return filepath.Join(p.Run, node, "identity.pem") }

// Cut keeps which nodes a node's store is cut off from, for its next start.
func (p Paths) Cut(node string) string { return filepath.Join(p.Run, node, "cut.json") }

// PeerSocket is where a store listens for others whose topology gives it no address.
func (p Paths) PeerSocket(node string) string { return filepath.Join(p.Run, node, "peer.sock") }

// MeshName is the name of the mesh in its certificates: another one for each data directory.
func (p Paths) MeshName() string {
	run := filepath.Base(p.Run)
	return "local-" + run[strings.LastIndexByte(run, '-')+1:]
}

// Log is the log of the process of that name.
func (p Paths) Log(process string) string {
	return filepath.Join(p.Data, logsDir, logName(process)+".log")
}

// StoreData is where a node's store keeps its log.
func (p Paths) StoreData(node string) string { return filepath.Join(p.Data, "nodes", node, "store") }

// EtcdData is where etcd keeps its own.
func (p Paths) EtcdData() string { return filepath.Join(p.Data, "etcd") }

func logName(process string) string {
	out := []byte(process)
	for i, c := range out {
		if c == '/' {
			out[i] = '-'
		}
	}
	return string(out)
}

// prepare makes the folders. Sockets of an earlier run are removed: the lock says that nobody uses them.
func (p Paths) prepare() error {
	if err := os.MkdirAll(filepath.Join(p.Data, logsDir), 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if err := p.claimRun(); err != nil {
		return err
	}
	link := filepath.Join(p.Data, runLink)
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("data directory: %w", err)
	}
	if err := os.Symlink(p.Run, link); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return nil
}

// claimRun makes the run folder anew. It is under /tmp, where anybody may have put something of that name: what is not
// our own folder is refused, never used and never removed.
func (p Paths) claimRun() error {
	info, err := os.Lstat(p.Run)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("run folder: %w", err)
	case !info.IsDir() || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Getuid()):
		return fmt.Errorf("run folder: %s exists and is not this user's: remove it, or use another --data-dir", p.Run)
	default:
		if err := os.RemoveAll(p.Run); err != nil {
			return fmt.Errorf("run folder: %w", err)
		}
	}
	if err := os.Mkdir(p.Run, 0o700); err != nil {
		return fmt.Errorf("run folder: %w", err)
	}
	return nil
}
