#!/bin/sh
# tiny-vmm.sh TINY-VMM: the example runs its guest, or says why not.
if [ ! -w /dev/kvm ]; then
    echo 'no /dev/kvm here'
    exit 77
fi
said=$("$1") || exit 1
echo "$said"
[ "$said" = 'the guest says: 2 + 2 = 4' ]
