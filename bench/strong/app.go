package strong

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	countersv1 "github.com/holdfast-mesh/holdfast/bench/counters/v1"
)

// etcdVariable names etcd's address for the application.
const etcdVariable = "BENCH_ETCD"

// app is a service that keeps its counters in etcd by itself: Eventual's methods by compare-and-put, Strong's by get and
// compare-and-put. It has one connection, as etcd's client library has.
type app struct {
	countersv1.UnimplementedStrongServer
	r    *raw
	step func(ctx context.Context, caller, k int) error
}

func serveApp(ctx context.Context) error {
	l, err := net.Listen("tcp", net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT")))
	if err != nil {
		return err
	}
	r, err := dialEtcd(os.Getenv(etcdVariable), "app", 1, maxKeys)
	if err != nil {
		return err
	}
	defer r.close()
	s := grpc.NewServer()
	countersv1.RegisterStrongServer(s, &app{r: r, step: r.getAndPut})
	countersv1.RegisterEventualServer(s, &cachingApp{app: app{r: r, step: r.compareAndPut}})
	go func() {
		<-ctx.Done()
		s.Stop()
	}()
	return s.Serve(l)
}

func (a *app) Increment(ctx context.Context, req *countersv1.Request) (*countersv1.Count, error) {
	k, err := number(req)
	if err != nil {
		return nil, err
	}
	return &countersv1.Count{}, a.step(ctx, 0, k)
}

func (a *app) Read(ctx context.Context, req *countersv1.Request) (*countersv1.Count, error) {
	k, err := number(req)
	if err != nil {
		return nil, err
	}
	count, _, err := a.r.get(ctx, 0, k)
	return &countersv1.Count{Value: count}, err
}

type cachingApp struct {
	countersv1.UnimplementedEventualServer
	app app
}

func (a *cachingApp) Increment(ctx context.Context, req *countersv1.Request) (*countersv1.Count, error) {
	return a.app.Increment(ctx, req)
}

func number(req *countersv1.Request) (int, error) {
	k, err := strconv.Atoi(strings.TrimPrefix(req.GetCounter(), keyPrefix))
	if err != nil || k < 0 || k >= maxKeys {
		return 0, status.Errorf(codes.InvalidArgument, "counter %q: it is %s and a number below %d", req.GetCounter(), keyPrefix, maxKeys)
	}
	return k, nil
}
