#!/bin/sh
# A Debian 12 disk: debootstrap, the standard kernel (linux-image-amd64), systemd, GRUB in the
# MBR, an MBR partition table with one ext4 partition. Needs root (sudo) for debootstrap, but no
# loop device: mke2fs fills the partition and GRUB is put into the gap before it by hand.
#
# root has no password; login prompts are on tty1 and ttyS0. The menu's first entry stays in VGA
# text mode (nomodeset), the second takes the graphics driver.

. "$(dirname "$0")/lib.sh"
image debian.img
need debootstrap:debootstrap mke2fs:e2fsprogs grub-mkimage:grub-common
[ -f /usr/share/keyrings/debian-archive-keyring.gpg ] || need -:debian-archive-keyring

root=$work/rootfs
first=2048
size=1024 # MiB

mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' \
    'Codename: bookworm' 2>/dev/null | head -1)
# 9 is the lock, which no process that outlives us may hold.
$sudo debootstrap --variant=minbase \
    --include=systemd-sysv,linux-image-amd64,udev,kmod,initramfs-tools,iproute2,pciutils,procps \
    --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
    bookworm "$root" "${mirror:-http://deb.debian.org/debian}" >"$work/log" 2>&1 9>&- || {
    tail -20 "$work/log" >&2
    die 'debootstrap failed'
}

# The initial file system has the drivers of the disks hv offers and no others: a fifth of the
# default's size, which the firmware must read and the kernel unpack.
$sudo tee "$root/etc/initramfs-tools/modules" >/dev/null <<EOF
ahci
sd_mod
sr_mod
nvme
virtio_pci
virtio_blk
virtio_scsi
ext4
crc32c_generic
EOF
$sudo sed -i 's/^MODULES=.*/MODULES=list/' "$root/etc/initramfs-tools/initramfs.conf"

$sudo chroot "$root" /bin/sh -eu >"$work/log" 2>&1 9>&- <<'EOF' || { cat "$work/log" >&2; exit 1; }
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
passwd -d root
echo hvguest >/etc/hostname
echo '127.0.0.1 localhost hvguest' >/etc/hosts
echo 'LABEL=root / ext4 errors=remount-ro,noatime 0 1' >/etc/fstab
: >/etc/machine-id
systemctl enable serial-getty@ttyS0.service
# What a freshly made guest does on its own account, at random times.
systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    fstrim.timer e2scrub_reap.service systemd-networkd-wait-online.service
update-initramfs -u
apt-get clean
rm -rf /var/lib/apt/lists/* /var/log/*.log /usr/share/doc /usr/share/man /usr/share/locale
# Drivers of hardware that no virtual machine has: two thirds of the modules' size.
cd /lib/modules/*/kernel
rm -rf drivers/media drivers/infiniband drivers/net/wireless drivers/isdn drivers/staging \
    drivers/iio drivers/gpu/drm/amd drivers/gpu/drm/i915 drivers/gpu/drm/nouveau \
    drivers/gpu/drm/radeon drivers/net/ethernet/mellanox drivers/net/ethernet/broadcom \
    drivers/net/ethernet/chelsio drivers/net/ethernet/qlogic drivers/scsi/lpfc \
    drivers/scsi/qla2xxx drivers/scsi/bfa sound/soc net/mac80211 net/wireless fs/ocfs2 fs/ceph
depmod "$(basename /lib/modules/*)"
EOF

$sudo mkdir -p "$root/boot/grub"
$sudo tee "$root/boot/grub/grub.cfg" >/dev/null <<'EOF'
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=1
set options="root=LABEL=root ro quiet mitigations=off console=tty0 console=ttyS0,115200"
menuentry 'Debian 12' {
    linux /vmlinuz $options nomodeset
    initrd /initrd.img
}
menuentry 'Debian 12, graphics' {
    linux /vmlinuz $options
    initrd /initrd.img
}
EOF

disk=$work/disk.img
truncate -s ${size}M "$disk"
$sudo mke2fs -q -F -t ext4 -L root -m 0 -E offset=$((first * 512)) -d "$root" "$disk" \
    $((size * 1024 - first / 2)) >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
partition "$disk" $first $((size * 2048 - first)) 131

# boot.img loads the sector after it, the core image's own first sector loads the rest; both have
# these places as their defaults.
unpack grub-pc-bin
grub=$work/root/usr/lib/grub/i386-pc
grub-mkimage -d "$grub" -O i386-pc -o "$work/core.img" -p '(hd0,msdos1)/boot/grub' \
    biosdisk part_msdos ext2 normal linux serial terminal echo ls cat reboot halt configfile
[ "$(stat -c %s "$work/core.img")" -le $(((first - 1) * 512)) ] || die 'core.img is too large'
dd if="$grub/boot.img" of="$disk" bs=440 count=1 conv=notrunc status=none
dd if="$work/core.img" of="$disk" bs=512 seek=1 conv=notrunc status=none

publish "$disk"
