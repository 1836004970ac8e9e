export{ActivityNotification,PovError,TeamActivity,connect,createFeed}from"./pov-rt-widgets-TV6SOWN6.mjs";
