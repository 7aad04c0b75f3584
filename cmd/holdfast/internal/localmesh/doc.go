// Package localmesh is `holdfast up`: it starts a whole mesh on this machine as real processes, keeps them running, adds
// and removes nodes while it runs, and stops them in the right order.
//
// The order, and why (see Mesh.Start): etcd and the users' services first, since they need nobody; then the control plane
// (it reads the services' descriptors and keeps the placement in etcd) and the stores (they ask etcd for strong entities);
// then the Envoys, which wait for the control plane to tell them anything. Stopping goes the other way round. A node that
// leaves is first taken out of the topology, then drained, then its store hands over what the others lack, and ends.
//
// It knows nothing of xDS, state or gossip: it writes mesh.json (internal/mesh), which the control plane watches, and
// starts the other commands of the same binary. It is also the stores' certificate authority (certify.go), writes the file
// of their gossip keys (rotate.go) and tells them whom to be cut off from (fault.go). That makes it larger than a package
// should be; all of it turns on the same nodes under the same lock.
package localmesh
