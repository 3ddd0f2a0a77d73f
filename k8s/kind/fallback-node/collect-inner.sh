#!/bin/bash
# shellcheck disable=SC2046,SC2086,SC2155,SC2162  # names of system files: no spaces in them
# run in the node base image: collect the files of the in-cluster images (etcd, iptables, ip, a shell, hyperkube) under /out/root
set -e
R=/out/root; L=/usr/lib/$(uname -m)-linux-gnu  # x86_64 and aarch64
rm -rf $R; mkdir -p $R/{tmp,etc,proc,sys,dev,run,var/lib,var/log,root}; chmod 1777 $R/tmp
for d in bin sbin lib lib64; do [ -L /$d ] && cp -a /$d $R/; done
mkdir -p $R/usr/{bin,sbin,lib,lib64,local/bin}
files="/usr/sbin/xtables-nft-multi /usr/sbin/xtables-legacy-multi /usr/sbin/conntrack /usr/bin/ip /usr/sbin/ip /bin/ip /bin/bash /bin/sh /bin/dash /bin/cat /bin/ls /bin/sleep /usr/bin/curl /bin/kmod /usr/bin/etcd /usr/bin/etcdctl /bin/ps /bin/mkdir /usr/bin/env"
cpf(){ local f=$1; local d=$R$(readlink -f "$(dirname "$f")"); mkdir -p "$d"; cp -a "$f" "$d/"; if [ -L "$f" ]; then local t=$(readlink -f "$f"); mkdir -p "$R$(dirname "$t")"; cp -a "$t" "$R$t"; fi; }
for f in $files; do [ -e $f ] && cpf $f || true; done
for n in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do ln -sf xtables-nft-multi $R/usr/sbin/$n; ln -sf xtables-nft-multi $R/usr/sbin/${n/tables/tables-nft}; ln -sf xtables-legacy-multi $R/usr/sbin/${n/tables/tables-legacy}; done
mkdir -p $R$L; cp -a $L/xtables $R$L/
for f in /lib64/ld-linux-*.so.* /lib/ld-linux-*.so.*; do if [ -e $f ]; then cpf $f; fi; done
find $R -type f \( -perm /111 -o -name '*.so*' \) | while read f; do ldd $f 2>/dev/null | grep -o '/[^ ]*' || true; done | sort -u | while read l; do [ -e "$R$(readlink -f $(dirname $l))/$(basename $l)" ] || cpf $l; done
for l in libnss_files.so.2 libnss_dns.so.2 libresolv.so.2; do cpf $L/$l; done
cp -L /etc/nsswitch.conf $R/etc/ 2>/dev/null || echo 'hosts: files dns' > $R/etc/nsswitch.conf
cp /etc/passwd /etc/group /etc/protocols /etc/services $R/etc/ 2>/dev/null || true
mkdir -p $R/etc/ssl/certs; cp -L /etc/ssl/certs/ca-certificates.crt $R/etc/ssl/certs/
cp /in/hyperkube $R/usr/local/bin/
for n in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kindnetd coredns metrics-server; do ln -s hyperkube $R/usr/local/bin/$n; done
du -sh $R; chroot $R /usr/sbin/iptables --version; chroot $R /usr/bin/etcd --version | head -1; chroot $R /usr/local/bin/kube-proxy --version
