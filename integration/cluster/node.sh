#!/bin/bash
# The first process of a test node, in pid, mount, net, ipc and uts namespaces of its own: whatever it starts ends with it.
#
#   node.sh DIRECTORY INDEX KUBE_PROXY    (INDEX 1: with the control plane; KUBE_PROXY: its mode)
#
# DIRECTORY is the cluster's: what it was given (pki/, images/, the program `kubernetes`) and what it makes (nodeINDEX/).
# `eth0` is moved in by whoever starts it. It is up when nodeINDEX/ready is there.
set -euo pipefail

cluster=$1 index=$2 kube_proxy=$3
here=$(cd "$(dirname "$0")" && pwd)
name=node$index
home=$cluster/$name pki=$cluster/pki
address=10.99.0.$((index + 1)) address6=fd99::$((index + 1)) control_plane=https://10.99.0.2:6443
cgroup=$(basename "$cluster")-$name
kubernetes=$cluster/kubernetes
containerd=/run/containerd/containerd.sock

mkdir -p "$home"/{log,fake,var-log,state,cni,cni-bin,volume-plugins}
exec >>"$home/log/node.log" 2>&1
set -x

# Nothing below reaches the machine's own /run, /var/log, /var/lib/orlop, /etc/cni, /opt/cni, /sys/fs/bpf or settings. kubelet wants to set some of the kernel's:
# it finds files in their place, and `panic_on_oops` stays as it is.
hostname "$name"
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/lock /run/cgroup
mkdir -p /var/lib/orlop /etc/cni/net.d /opt/cni/bin
mount --bind "$home/var-log" /var/log
mount --bind "$home/state" /var/lib/orlop
mount --bind "$home/cni" /etc/cni/net.d
mount --bind "$home/cni-bin" /opt/cni/bin
cp /usr/lib/cni/{bridge,host-local,loopback,portmap} /opt/cni/bin
while read -r setting value; do
  echo "$value" >"$home/fake/${setting//\//_}"
  mount --bind "$home/fake/${setting//\//_}" "/proc/sys/$setting"
done <<END
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
END
# A sysfs of this network namespace, with the machine's cgroups.
mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys
mount --rbind /run/cgroup /sys/fs/cgroup
umount -l /run/cgroup
mount -t bpf bpf /sys/fs/bpf
mount --make-rshared /

ip link set lo up
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv6.conf.all.forwarding=1
ip addr add "$address/24" dev eth0
ip addr add "$address6/64" dev eth0 nodad
ip link set eth0 up
ip route add default dev eth0
ip -6 route add default dev eth0
for peer in 1 2; do
  [ "$peer" = "$index" ] && continue
  ip route add "10.244.$peer.0/24" via "10.99.0.$((peer + 1))"
  ip -6 route add "fd44:0:0:$peer::/64" via "fd99::$((peer + 1))"
done

start() { # NAME COMMAND...
  local log=$home/log/$1.log
  shift
  "$@" >>"$log" 2>&1 &
}
wait_for() { # COMMAND...
  until "$@" >/dev/null 2>&1; do sleep 0.1; done
}

if [ "$index" = 1 ]; then
  start etcd "$kubernetes" etcd --data-dir "$home/etcd" --log-level warn --unsafe-no-fsync \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster default=http://127.0.0.1:2380
  start kube-apiserver "$kubernetes" kube-apiserver \
    --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --advertise-address="$address" --secure-port=6443 \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
    --service-cluster-ip-range=10.96.0.0/16,fd96::/108 --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$pki/accounts.pub" --service-account-signing-key-file="$pki/accounts.key" \
    --kubelet-preferred-address-types=InternalIP --kubelet-certificate-authority="$pki/ca.crt" \
    --kubelet-client-certificate="$pki/admin.crt" --kubelet-client-key="$pki/admin.key"
  wait_for curl -sf --cacert "$pki/ca.crt" --cert "$pki/admin.crt" --key "$pki/admin.key" "$control_plane/readyz"
  start kube-controller-manager "$kubernetes" kube-controller-manager --bind-address=127.0.0.1 --leader-elect=false \
    --kubeconfig="$pki/controllers.kubeconfig" --authentication-kubeconfig="$pki/controllers.kubeconfig" \
    --authorization-kubeconfig="$pki/controllers.kubeconfig" --use-service-account-credentials --cert-dir="$home/controllers" \
    --service-account-private-key-file="$pki/accounts.key" --root-ca-file="$pki/ca.crt"
  start kube-scheduler "$kubernetes" kube-scheduler --bind-address=127.0.0.1 --leader-elect=false \
    --kubeconfig="$pki/scheduler.kubeconfig" --authentication-kubeconfig="$pki/scheduler.kubeconfig" \
    --authorization-kubeconfig="$pki/scheduler.kubeconfig" --cert-dir="$home/scheduler"
  "$kubernetes" kubectl --kubeconfig="$pki/admin.kubeconfig" create clusterrolebinding kube-proxy-node \
    --clusterrole=system:node-proxier --user=system:kube-proxy
fi

# Everything of this node lies below one cgroup of each hierarchy.
for hierarchy in /sys/fs/cgroup/*/; do
  [ -e "$hierarchy/cgroup.procs" ] && mkdir -p "$hierarchy/$cgroup"
done
for file in cpuset.cpus cpuset.mems; do
  cat "/sys/fs/cgroup/cpuset/$file" >"/sys/fs/cgroup/cpuset/$cgroup/$file"
done

for file in containerd.toml kubelet.yaml kube-proxy.yaml cni/10-bridge.conflist; do
  # What somebody has made of a file outlives the node's restart.
  [ -e "$home/$file" ] && continue
  sed -e "s#@HOME@#$home#g; s#@PKI@#$pki#g; s#@NODE@#$name#g; s#@CGROUP@#$cgroup#g; s#@ETC@#$here/etc#g" \
    -e "s#@PODS@#10.244.$index.0/24#g; s#@PODS6@#fd44:0:0:$index::/64#g; s#@PROXY@#$kube_proxy#g" "$here/etc/$(basename "$file")" >"$home/$file"
done
start containerd containerd --config "$home/containerd.toml"
wait_for ctr --address "$containerd" version
for image in "$cluster"/images/*.tar; do
  ctr --address "$containerd" --namespace k8s.io images import "$image"
done
# The kubelet in a cgroup of its own, as a service manager has it.
own=/sys/fs/cgroup/unified/$cgroup/kubelet
mkdir -p "$own"
start kubelet bash -c 'echo $$ >"$0/cgroup.procs"; exec "$@"' "$own" "$kubernetes" kubelet --config="$home/kubelet.yaml" --kubeconfig="$pki/$name.kubeconfig" \
  --hostname-override="$name" --node-ip="$address,$address6" --root-dir="$home/kubelet" --cert-dir="$home/kubelet-pki"
start kube-proxy "$kubernetes" kube-proxy --config="$home/kube-proxy.yaml"
wait_for "$kubernetes" kubectl --kubeconfig="$pki/admin.kubeconfig" wait --for=condition=Ready "node/$name" --timeout=2s
touch "$home/ready"

# Reap whatever is left to the first process.
while :; do wait; sleep 1; done
