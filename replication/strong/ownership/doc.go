// Package ownership decides which slots a store owns, and until when it may serve them from memory. It is a pure state
// machine: the time and etcd's answers go in, requests to etcd come out; who calls it carries them out, one at a time for
// the lease and any number for claims, and may lose any answer.
//
// A store has a lease, and under it a key for each slot that it claimed. The slot key's create revision is the claim's
// epoch. While etcd keeps the lease nobody else can claim the slot, so the store may serve reads from memory; but it must
// stop before etcd lets the lease go, and it only has its own clock to know when that is.
//
// # When memory may be served
//
// Until send time of the answered keep-alive + TTL - margin, on a clock that also counts suspension. Let r bound how much
// faster or slower than real time either machine's clock runs. Etcd counts the TTL from a moment after the sending, so it
// waits at least TTL/(1+r) real time after it; the store stops at most (TTL-margin)/(1-r) after it. Margin >= TTL*2r/(1+r)
// is safe. With margin = TTL/10 that is r <= 5 %, a hundred times what oscillators do and more than NTP ever slews.
//
// Writes need none of this: each is guarded by the epoch in etcd.
//
// # The lease's requests
//
//	Grant       get a lease
//	ReadFormer  read this node's store key: which lease did its former process leave?
//	Revoke      end that lease, where the process is known to have exited
//	Register    write the store key under the lease: now it is this store's
//	KeepAlive   every TTL/6, until etcd says that the lease is gone; then from the beginning
//	Probe       after a KeepAlive without an answer, until one comes: keep-alives that arrive while no answers come back
//	            would keep the slots from all others for a store that may not serve them
//
// What has no answer is asked again after a pause. A claim is Look, and Take where the slot is free.
package ownership
