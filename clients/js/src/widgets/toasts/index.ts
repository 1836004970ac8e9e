export const allowDesktop = async (): Promise<void> => {}
export const hear = async (): Promise<void> => {}
