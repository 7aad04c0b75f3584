// Package strong serves strong entities.
package strong
