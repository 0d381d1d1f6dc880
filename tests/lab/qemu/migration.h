/*
 * SPDX-License-Identifier: MIT
 *
 * What a controller of QEMU's hw/nvme keeps for Host Managed Live Migration. nvme.h includes this file; the code is in
 * migration.c, whose head says what it is.
 */

#ifndef HW_NVME_MIGRATION_H
#define HW_NVME_MIGRATION_H

typedef struct NvmeMigration {
    bool               held;     /* fetches nothing: suspended, or about to be */
    struct NvmeRequest *waiting; /* the primary's Suspend, while commands of this controller are still under way */
    GByteArray         *state;   /* Set Controller State: what has come of a state that is not committed */
    uint32_t           order;    /* of a failure: see nvme_migration_order() */
    uint32_t           passing;  /* commands that pass before it */
    uint16_t           status;   /* that it ends with */
} NvmeMigration;

#endif
