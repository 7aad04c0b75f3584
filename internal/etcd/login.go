package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// login gets a user's token and remembers it. Etcd forgets a token that a member did not see for some minutes, and all of
// them when users change; the next call is then refused, and renew gets another. nil is nobody's login.
type login struct {
	user, file string
	token      atomic.Pointer[string]
	// turn is held by who renews.
	turn chan struct{}
	// failed is why the last attempt failed, and when it did. Held with turn.
	failed   error
	failedAt time.Time
}

func newLogin(user, file string) (*login, error) {
	switch {
	case user == "" && file == "":
		return nil, nil
	case user == "" || file == "":
		return nil, errors.New("a user needs a password file, and a password file a user")
	}
	l := &login{user: user, file: file, turn: make(chan struct{}, 1)}
	_, err := l.password()
	return l, err
}

// current is the token; "" while there is none.
func (l *login) current() string {
	if l == nil {
		return ""
	}
	if t := l.token.Load(); t != nil {
		return *t
	}
	return ""
}

// renew replaces the token old, which was refused, unless somebody did so already.
func (l *login) renew(ctx context.Context, m *member, old string) error {
	if l == nil {
		return fmt.Errorf("%w: it wants a user and a password", ErrLogin)
	}
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if l.current() != old {
		return nil
	}
	if l.failed != nil && time.Since(l.failedAt) < loginPause {
		return l.failed
	}
	token, err := l.authenticate(ctx, m)
	if err != nil {
		var e *Error
		if errors.As(err, &e) && refused(e.Err) {
			err = fmt.Errorf("%w: %w", ErrLogin, e.Err)
			l.failed, l.failedAt = err, time.Now()
		}
		return err
	}
	l.failed = nil
	l.token.Store(&token)
	return nil
}

func (l *login) authenticate(ctx context.Context, m *member) (token string, err error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	password, err := l.password()
	if err != nil {
		return "", err
	}
	err = m.do(ctx, "log in", "", false, func(ctx context.Context, m *member, opts ...grpc.CallOption) (header, error) {
		resp, err := m.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: l.user, Password: password}, opts...)
		if errors.Is(rpctypes.Error(err), rpctypes.ErrAuthNotEnabled) {
			return resp.GetHeader(), nil
		}
		token = resp.GetToken()
		return resp.GetHeader(), err
	})
	return token, err
}

// password is the file's first line.
func (l *login) password() (string, error) {
	f, err := os.Open(l.file)
	if err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPassword))
	if err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", fmt.Errorf("password: %s begins with an empty line", l.file)
	}
	return line, nil
}
