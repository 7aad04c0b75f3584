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
	// service is the last good form, and good the configuration that it was made of; both nil before the first. While
	// good is not spec, service goes on as it was, workload and all.
	service *resolve.Service
	good    *v1alpha1.StatefulService
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

// setSpec takes a service's new configuration. Descriptors that it gets from elsewhere than before, or of another service,
// have to be asked for; until they are here, the last good form stays.
func (r *resolution) setSpec(s *v1alpha1.StatefulService) {
	switch {
	case sameSource(r.spec, s):
	case r.good != nil && sameSource(r.good, s):
		r.descriptors = r.service.Descriptors
	default:
		r.descriptors = nil
	}
	r.unavailable = nil
	r.spec, r.fetching, r.attempts, r.pause, r.next = s, false, 0, 0, time.Time{}
	r.generation++
	r.err = nil
	r.compile()
}

// sameSource says that both get the same service's descriptors from the same place.
func sameSource(a, b *v1alpha1.StatefulService) bool {
	return a.Spec.Service == b.Spec.Service && *a.Spec.Descriptors == *b.Spec.Descriptors && *a.Spec.WorkloadRef == *b.Spec.WorkloadRef
}

// former says that the form in use is not of the present configuration.
func (r *resolution) former() bool { return r.service != nil && r.good != r.spec }

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
		r.service, r.good = s, r.spec
	}
}

// state is what people are told.
func (r *resolution) state() (string, error) {
	err := r.err
	if err == nil && (r.service == nil || r.former()) {
		if err = r.unavailable; err == nil {
			err = errors.New("its descriptors are being asked for")
		}
	}
	switch {
	case err != nil && r.service != nil:
		return admin.ServiceStale, fmt.Errorf("%w; %s goes on as it was before", err, r.good.Spec.Service)
	case r.err != nil:
		return admin.ServiceRefused, err
	case err != nil:
		return admin.ServiceWaiting, err
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
