// Package controlplane turns the user's documents into what Envoys and stores are told.
//
// Data flows one way, and each stage stands alone:
//
//	file       the YAML and the topology, parsed                    (controlplane/file, controlplane/api/v1alpha1)
//	resolve    descriptors, the places of keys and state            (controlplane/resolve)
//	placement  the members with an epoch that never goes back       (placement.go, kept through Placements)
//	assemble   one proxy for each Envoy, the types for the stores   (assemble.go, pure)
//	check      by the filter's own parser, injected                 (assemble.go)
//	stores     told first, so that none is asked for a type that it doesn't know   (stores.go)
//	Envoys     then: their resources change                         (xds/translate, xds/serve)
//	stores     last: what no Envoy uses any more goes
//
// One goroutine, the main loop, owns all state and runs what others post to it. Whatever can't be had (a service that is
// down, etcd, a store) is tried again and holds up nothing else; whatever is refused leaves the last good form in place and
// is shown with its reason. The package is over our size because that state is one thing: what could be cut off (files,
// descriptors, xDS, the API) has its own package, the rest would only be passed about.
package controlplane

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-mesh/holdfast/controlplane/admin"
	"github.com/holdfast-mesh/holdfast/controlplane/api/v1alpha1"
	"github.com/holdfast-mesh/holdfast/controlplane/file"
	"github.com/holdfast-mesh/holdfast/controlplane/resolve"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	"github.com/holdfast-mesh/holdfast/xds/serve"
)

// Config is what Run needs. Every field but Placements, BuiltIn and Log must be set.
type Config struct {
	// File is the user's YAML, Topology the supervisor's mesh.json. Both are watched.
	File, Topology string
	// XDSSocket and AdminSocket are Unix sockets that Run listens on, in a private folder.
	XDSSocket, AdminSocket string
	// StateDir keeps the last good configuration across restarts.
	StateDir string
	// Placements keeps the placement; nil keeps it in StateDir, for a mesh without etcd.
	Placements Placements
	Stores     Stores
	// CheckFilter is the filter's own parser: what it refuses is never sent to an Envoy.
	CheckFilter func([]byte) error
	// BuiltIn holds services of Holdfast's own, added behind the user's.
	BuiltIn *v1alpha1.Config
	Log     *slog.Logger
}

func (c *Config) validate() error {
	for name, v := range map[string]string{
		"File": c.File, "Topology": c.Topology, "XDSSocket": c.XDSSocket, "AdminSocket": c.AdminSocket, "StateDir": c.StateDir,
	} {
		if v == "" {
			return fmt.Errorf("control plane: %s is not set", name)
		}
	}
	if c.Stores == nil || c.CheckFilter == nil {
		return errors.New("control plane: Stores or CheckFilter is not set")
	}
	if c.Placements == nil {
		c.Placements = filePlacements{placementPath(c.StateDir)}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// plane is the state of the main loop; but for the fields that say otherwise it is used there only.
type plane struct {
	cfg   Config
	log   *slog.Logger
	xds   *serve.Server
	place *placer
	// group holds every goroutine but the main loop. Safe for all.
	group sync.WaitGroup
	// posts carries what others want done on the main loop; a post blocks until it is taken.
	posts chan func()
	// view is what the admin API shows, replaced as a whole. Safe for all.
	view atomic.Pointer[view]

	started time.Time
	config  *v1alpha1.Config
	source  []byte
	// goodSource is the last text that was good in every part.
	goodSource   []byte
	configErr    error
	topology     *mesh.Topology
	topologyErr  error
	services     map[string]*resolution
	placement    *configv1.Placement
	placementErr error
	// confirmed: the placement is the one that is kept, not only the one that was saved here.
	confirmed     bool
	wished        placementWish
	wishedAt      time.Time
	savedServices map[string]*resolve.Descriptors
	stores        map[string]*storeHandle
	rollout       rollout
}

type storeHandle struct {
	*store
	stop context.CancelFunc
}

// Run runs the control plane until ctx is done. It returns early where a socket can't be had.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	var seed [8]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return fmt.Errorf("control plane: %w", err)
	}
	p := &plane{
		cfg: cfg, log: cfg.Log, posts: make(chan func()), started: time.Now(),
		services: map[string]*resolution{}, stores: map[string]*storeHandle{},
		xds: serve.New(serve.Options{Socket: cfg.XDSSocket, Log: cfg.Log}),
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p.place = &placer{
		store: cfg.Placements, log: cfg.Log, seed: binary.LittleEndian.Uint64(seed[:]), wants: make(chan placementWish, 1),
		publish: func(pl *configv1.Placement, err error) { p.post(ctx, func() { p.setPlacement(pl, err) }) },
	}
	p.restore()
	p.publish()

	registry := prometheus.NewRegistry()
	registry.MustRegister(admin.Metrics{Source: p, Answers: p.xds.Answers})
	// The order matters for nothing but the log: each part waits for what it needs.
	for name, part := range map[string]func() error{
		"file":      func() error { return p.watch(ctx) },
		"placement": func() error { p.place.run(ctx); return nil },
		"xds":       func() error { return p.xds.Run(ctx) },
		"admin":     func() error { return admin.Serve(ctx, cfg.AdminSocket, admin.Handler(p, registry)) },
		"answers":   func() error { p.followAnswers(ctx); return nil },
	} {
		p.group.Go(func() {
			if err := part(); err != nil {
				cancel(fmt.Errorf("control plane: %s: %w", name, err))
			}
		})
	}
	p.loop(ctx)
	p.group.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// post runs f on the main loop.
func (p *plane) post(ctx context.Context, f func()) {
	select {
	case p.posts <- f:
	case <-ctx.Done():
	}
}

func (p *plane) loop(ctx context.Context) {
	ticker := time.NewTicker(fetchRetry)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-p.posts:
			f()
		case <-ticker.C:
		}
		p.reconcile(ctx)
		p.publish()
	}
}

// followAnswers wakes the main loop when an Envoy has answered.
func (p *plane) followAnswers(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.xds.Changed():
			p.post(ctx, func() {})
		}
	}
}

func (p *plane) watch(ctx context.Context) error {
	return file.Watch(ctx, p.cfg.File, p.cfg.Topology, func(e file.Event) {
		p.post(ctx, func() { p.take(e) })
	})
}

// take takes in a new content of a file, or the reason why the last good one stays.
func (p *plane) take(e file.Event) {
	switch {
	case e.ConfigErr != nil:
		p.configErr = e.ConfigErr
		p.log.Error("configuration refused, the last good one stays", "error", e.ConfigErr)
	case e.TopologyErr != nil:
		p.topologyErr = e.TopologyErr
		p.log.Error("topology refused, the last good one stays", "error", e.TopologyErr)
	case e.Config != nil:
		p.configErr = nil
		p.setConfig(e.Config, e.Source)
		p.log.Info("configuration accepted", "services", len(p.config.Services))
	case e.Topology != nil:
		p.topologyErr, p.topology = nil, e.Topology
		p.log.Info("topology read", "nodes", len(e.Topology.Nodes))
		// New replicas may have come: ask those that nobody answered for at once.
		for _, r := range p.services {
			if r.service == nil || r.former() {
				r.pause, r.next = 0, time.Time{}
			}
		}
	}
}

func (p *plane) setConfig(c *v1alpha1.Config, source []byte) {
	p.config, p.source = withBuiltIn(c, p.cfg.BuiltIn), source
	services := map[string]*resolution{}
	for _, s := range p.config.Services {
		r := p.services[s.Metadata.Name]
		if r == nil {
			r = &resolution{spec: s, descriptors: p.savedServices[s.Metadata.Name]}
		}
		r.setSpec(s)
		services[s.Metadata.Name] = r
	}
	p.services = services
}

// withBuiltIn adds our own services behind the user's. A user's of the same name hides ours.
func withBuiltIn(c, own *v1alpha1.Config) *v1alpha1.Config {
	out := &v1alpha1.Config{Path: c.Path, Mesh: c.Mesh}
	taken := map[string]bool{}
	for _, s := range c.Services {
		taken[s.Metadata.Name], taken[s.Spec.Service], taken[s.Spec.Entity.Type] = true, true, true
	}
	out.Services = append(out.Services, c.Services...)
	if own != nil {
		for _, s := range own.Services {
			if !taken[s.Metadata.Name] && !taken[s.Spec.Service] && !taken[s.Spec.Entity.Type] {
				out.Services = append(out.Services, s)
			}
		}
	}
	return out
}

// restore brings back what an earlier control plane saved, so that this one serves before anybody answers.
func (p *plane) restore() {
	s, err := loadSaved(p.cfg.StateDir)
	if err != nil {
		p.log.Warn("starting without the last good configuration", "error", err)
	}
	p.savedServices, p.placement = s.descriptors(), s.placement()
	if len(s.Source) == 0 {
		return
	}
	c, err := v1alpha1.Parse(s.Path, s.Source)
	if err != nil {
		p.log.Warn("starting without the last good configuration", "error", err)
		return
	}
	p.goodSource = s.Source
	p.setConfig(c, s.Source)
}

func (p *plane) setPlacement(pl *configv1.Placement, err error) {
	p.placementErr = err
	if pl != nil && pl.GetEpoch() >= p.placement.GetEpoch() {
		p.placement, p.confirmed = pl, true
	}
}
