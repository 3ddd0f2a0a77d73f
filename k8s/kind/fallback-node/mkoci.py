#!/usr/bin/env python3
"""mkoci.py ARCHITECTURE OUT.tar ROOTDIR NAME[=ENTRYPOINT]... : one single-layer image under several names, as an OCI archive that `ctr images import` takes."""
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile

arch,out,root,names=sys.argv[1],sys.argv[2],sys.argv[3],sys.argv[4:]
raw=subprocess.run(['tar','-C',root,'--sort=name','--owner=0','--group=0','--numeric-owner','--mtime=@0','-cf','-','.'],check=True,stdout=subprocess.PIPE).stdout
diff='sha256:'+hashlib.sha256(raw).hexdigest()
z=gzip.compress(raw,6,mtime=0)
blobs={}
def blob(b):
    d=hashlib.sha256(b).hexdigest(); blobs[d]=b; return {'digest':'sha256:'+d,'size':len(b)}
layer=dict(blob(z),mediaType='application/vnd.oci.image.layer.v1.tar+gzip')
idx=[]
for n in names:
    n,_,ep=n.partition('=')
    c={'created':'1970-01-01T00:00:00Z','architecture':arch,'os':'linux','config':{'Env':['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin']},'rootfs':{'type':'layers','diff_ids':[diff]},'history':[{'created_by':'mkoci '+n}]}
    if ep: c['config']['Entrypoint']=[ep]
    cfg=dict(blob(json.dumps(c).encode()),mediaType='application/vnd.oci.image.config.v1+json')
    m={'schemaVersion':2,'mediaType':'application/vnd.oci.image.manifest.v1+json','config':cfg,'layers':[layer]}
    d=dict(blob(json.dumps(m).encode()),mediaType=m['mediaType'],platform={'architecture':arch,'os':'linux'},annotations={'io.containerd.image.name':n,'org.opencontainers.image.ref.name':n.split(':')[-1]})
    idx.append(d)
with tarfile.open(out,'w') as t:
    def add(n,b):
        i=tarfile.TarInfo(n); i.size=len(b); t.addfile(i,io.BytesIO(b))
    add('oci-layout',b'{"imageLayoutVersion":"1.0.0"}')
    add('index.json',json.dumps({'schemaVersion':2,'manifests':idx}).encode())
    for d,b in blobs.items(): add('blobs/sha256/'+d,b)
print(out,os.path.getsize(out))
