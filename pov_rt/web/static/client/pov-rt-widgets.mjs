export{ActivityNotification,PovError,TeamActivity,connect,createFeed}from"./pov-rt-widgets-LNNV4VP2.mjs";
