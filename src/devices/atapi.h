/* The packet commands of a CD/DVD-ROM drive (MMC-6, SPC-3). A helper of ata.c and ahci.c. */
#pragma once
#include "ata.h"

enum { PACKET_SIZE = 12 };

/* A packet command: `job` has the taskfile of PACKET and gets the rest. */
void atapi_command(struct drive *drive, struct job *job, const uint8_t packet[PACKET_SIZE]);

void atapi_reset(struct drive *drive);
/* Another medium, or none, by the user: also from a drive that the guest has locked, as with a pin
 * in the hole beside the tray. */
void atapi_change_medium(struct drive *drive, struct disk *disk);
/* A read from the medium failed, or the medium went away under it. */
void atapi_disk_failed(struct drive *drive, struct job *job);
