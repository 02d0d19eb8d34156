#!/bin/sh
# demo-ova.sh DISK: makes demo.ova here, an appliance with that disk and 64 MiB of memory.
set -eu
qemu-img convert -O vmdk -o subformat=streamOptimized "$1" demo.vmdk
cat >demo.ovf <<'OVF'
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
  <References><File ovf:id="f" ovf:href="demo.vmdk"/></References>
  <DiskSection><Disk ovf:diskId="d" ovf:fileRef="f"/></DiskSection>
  <VirtualSystem ovf:id="demo">
    <VirtualHardwareSection>
      <Item><InstanceID>1</InstanceID><ResourceType>3</ResourceType><VirtualQuantity>1</VirtualQuantity></Item>
      <Item><InstanceID>2</InstanceID><ResourceType>4</ResourceType><VirtualQuantity>64</VirtualQuantity>
        <AllocationUnits>byte * 2^20</AllocationUnits></Item>
      <Item><InstanceID>3</InstanceID><ResourceType>20</ResourceType></Item>
      <Item><InstanceID>4</InstanceID><ResourceType>17</ResourceType><Parent>3</Parent>
        <HostResource>ovf:/disk/d</HostResource></Item>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
OVF
sha256sum --tag demo.ovf demo.vmdk >demo.mf
tar --format=ustar -cf demo.ova demo.ovf demo.vmdk demo.mf
