"""A cluster of Kubernetes, as far as a pod of the chart can see it.

Real: Helm, which renders the chart; the image, built from helm/Containerfile; runc, which runs every container in namespaces of
its own (PID, mount, IPC, network) with the user, the capabilities, the mounts and the read-only root that its pod asks for;
dnsmasq, which answers for Services; the kernel's network, one namespace for every node and for every pod on the pod network.

Emulated, in Python: what the kubelet does with a pod (volumes, environment, init containers, probes, restarts, termination), rolling
updates of DaemonSets and Deployments, endpoints and what kube-proxy, CoreDNS and external-dns make of them.

Not there: the API server, admission (Pod Security), schedulers, network policies, seccomp and AppArmor profiles, limits of CPU."""
