// controlplane is a Kubernetes control plane in one program, for tests: its first argument says which part to be.
//
//	controlplane etcd --data-dir DIR --client PORT --peer PORT
//	controlplane apiserver FLAGS...
//	controlplane controller-manager FLAGS...
//	controlplane version
package main

import (
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("say which part to be: etcd, apiserver, controller-manager or version"))
	}
	part := os.Args[1]
	// The parts read the command line themselves.
	os.Args = append([]string{part}, os.Args[2:]...)
	switch part {
	case "etcd":
		if err := etcd(os.Args[1:]); err != nil {
			fail(err)
		}
	case "apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "controller-manager":
		os.Exit(cli.Run(manager.NewControllerManagerCommand()))
	case "version":
		fmt.Println(version.Get().GitVersion)
	default:
		fail(fmt.Errorf("no part is called %q: etcd, apiserver, controller-manager or version", part))
	}
}

// etcd serves until SIGTERM or SIGINT. It does not sync its files: a test's data need not survive the machine.
func etcd(args []string) error {
	flags := flag.NewFlagSet("etcd", flag.ExitOnError)
	dir := flags.String("data-dir", "", "folder of the data")
	client := flags.Int("client", 0, "port of clients, on loopback")
	peer := flags.Int("peer", 0, "port of peers, on loopback")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dir == "" || *client == 0 || *peer == 0 {
		return errors.New("etcd needs --data-dir, --client and --peer")
	}
	config := embed.NewConfig()
	config.Dir = *dir
	config.LogLevel = "warn"
	config.UnsafeNoFsync = true
	clients := []url.URL{loopback(*client)}
	peers := []url.URL{loopback(*peer)}
	config.ListenClientUrls, config.AdvertiseClientUrls = clients, clients
	config.ListenPeerUrls, config.AdvertisePeerUrls = peers, peers
	config.InitialCluster = config.InitialClusterFromName(config.Name)

	server, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer server.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	select {
	case <-stop:
		return nil
	case err := <-server.Err():
		return err
	}
}

func loopback(port int) url.URL {
	return url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "controlplane:", err)
	os.Exit(1)
}
