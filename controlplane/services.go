package controlplane

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/holdfast-mesh/holdfast/controlplane/admin"
	"github.com/holdfast-mesh/holdfast/controlplane/api/v1alpha1"
	"github.com/holdfast-mesh/holdfast/controlplane/resolve"
)

// resolution is how far one StatefulService has come. The main loop alone uses it.
type resolution struct {
	spec        *v1alpha1.StatefulService
	descriptors *resolve.Descriptors
	// service is the last good form; nil before the first.
	service *resolve.Service
	// err is why the present spec or descriptors don't make one.
	err error
	// unavailable is why descriptors can't be had; those from before still count.
	unavailable error
	// attempts counts fetches that ended.
	attempts int
	fetching bool
	next     time.Time
	pause    time.Duration
	// generation tells a fetch's answer for this spec from one for an older.
	generation int
}

// setSpec takes a service's new configuration.
func (r *resolution) setSpec(s *v1alpha1.StatefulService) {
	r.spec, r.fetching, r.attempts, r.pause, r.next = s, false, 0, 0, time.Time{}
	r.generation++
	r.err = nil
	r.compile()
}

func (r *resolution) setDescriptors(d *resolve.Descriptors) (changed bool) {
	r.unavailable = nil
	if r.err == nil && r.descriptors != nil && d.Digest() == r.descriptors.Digest() {
		return false
	}
	r.descriptors = d
	r.compile()
	return true
}

// compile keeps the last good form where the present one is refused.
func (r *resolution) compile() {
	if r.descriptors == nil {
		return
	}
	s, err := resolve.Compile(r.spec, r.descriptors)
	r.err = err
	if err == nil {
		r.service = s
	}
}

// state is what people are told.
func (r *resolution) state() (string, error) {
	switch {
	case r.err != nil && r.service != nil:
		return admin.ServiceStale, r.err
	case r.err != nil:
		return admin.ServiceRefused, r.err
	case r.service == nil:
		if r.unavailable == nil {
			return admin.ServiceWaiting, errors.New("its descriptors are being asked for")
		}
		return admin.ServiceWaiting, r.unavailable
	}
	// With descriptors from before, a service that is down is not this part's trouble.
	return admin.ServiceOK, nil
}

// fetched is the answer of one fetch.
type fetched struct {
	name        string
	generation  int
	descriptors *resolve.Descriptors
	err         error
}

// fetch gets a service's descriptors from wherever its configuration says: from the first replica that has them.
func fetch(ctx context.Context, configPath string, s *v1alpha1.StatefulService, addresses []string) (*resolve.Descriptors, error) {
	if f := s.Spec.Descriptors.File; f != "" {
		if !filepath.IsAbs(f) {
			f = filepath.Join(filepath.Dir(configPath), f)
		}
		return resolve.ReadFile(f, s.Spec.Service)
	}
	err := fmt.Errorf("%w: no replica of workload %s is known yet", resolve.ErrUnavailable, s.Spec.WorkloadRef.Name)
	for _, a := range addresses {
		var d *resolve.Descriptors
		if d, err = resolve.Reflect(ctx, a, s.Spec.Service); err == nil {
			return d, nil
		}
		if !errors.Is(err, resolve.ErrUnavailable) {
			return nil, err
		}
	}
	return nil, err
}

// startFetches starts those that are due.
func (p *plane) startFetches(ctx context.Context, now time.Time) {
	running := 0
	for _, r := range p.services {
		if r.fetching {
			running++
		}
	}
	for _, s := range p.config.Services {
		r := p.services[s.Metadata.Name]
		if r == nil || r.fetching || now.Before(r.next) || running >= maxFetches {
			continue
		}
		var addresses []string
		for _, n := range p.topology.Nodes {
			if a := n.Services[s.Spec.WorkloadRef.Name]; a != "" && !slices.Contains(addresses, a) {
				addresses = append(addresses, a)
			}
		}
		running++
		r.fetching = true
		job := fetched{name: s.Metadata.Name, generation: r.generation}
		path, spec := p.config.Path, r.spec
		p.group.Go(func() {
			job.descriptors, job.err = fetch(ctx, path, spec, addresses)
			p.post(ctx, func() { p.fetchDone(job) })
		})
	}
}

func (p *plane) fetchDone(f fetched) {
	r := p.services[f.name]
	if r == nil || r.generation != f.generation {
		return
	}
	now := time.Now()
	r.fetching = false
	r.attempts++
	switch {
	case f.err == nil:
		r.pause, r.next = 0, now.Add(refetch)
		if r.setDescriptors(f.descriptors) {
			p.log.Info("descriptors resolved", "service", f.name, "digest", f.descriptors.Digest())
		}
		return
	case errors.Is(f.err, resolve.ErrUnavailable):
		r.unavailable = f.err
	default:
		// Where there are good ones from before they stay; that these are not must be told.
		r.err = f.err
	}
	r.pause = min(max(2*r.pause, fetchRetry), fetchRetryMax)
	r.next = now.Add(r.pause)
	if r.attempts == 1 {
		p.log.Info("descriptors are not to be had yet", "service", f.name, "error", f.err)
	}
}
